"""Erasures by command and over the API, and what copies of a folder hold of them."""

import json
import os
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from sidelight.adapters import EmbeddedDocuments, Inferences
from sidelight.logger._sealing import SealingJournal, SealingSettings
from sidelight.logger._segments import SegmentWriter
from sidelight.logger._segments_folder import FolderLock
from sidelight.service import _erasing
from sidelight.service._backup import back_up
from sidelight.service._cli import app
from sidelight.service._erasing_remote import erase_remotely
from sidelight.service._erasure_orders import ErasureAnswer, ErasureOrder, ErasureOrders
from sidelight.service._holds import Holds
from sidelight.service._offline import run_verify
from sidelight.service._query_store import note_store
from sidelight.service._replay import replay_into
from sidelight.service._sealing import sealing
from sidelight.service._settings import Settings
from sidelight.service._signing import signer_of
from sidelight.service._stages import work_off
from sidelight.service.errors import BadRequest, ConfigurationError, OnHold, ServiceError

_NAME = "prod/flights"
_MARKER = "marker-of-the-subject"
_SEALED = SealingSettings(deployments=(_NAME,))


def _request(request_id: str, who: str, side: str = "request") -> tuple[bytes, bytes]:
    head = (
        f"POST /events HTTP/1.1\r\nce-specversion: 1.0\r\nce-source: /s\r\nce-id: {request_id}\r\n"
        f"ce-type: org.kubeflow.serving.inference.{side}\r\nce-namespace: prod\r\n"
        "ce-inferenceservicename: flights\r\nce-time: 2026-01-01T00:00:00Z\r\n\r\n"
    )
    tensor = {"name": "who", "shape": [1], "datatype": "BYTES", "data": [who]}
    named = {"inputs": [tensor]} if side == "request" else {"outputs": [tensor]}
    return head.encode(), json.dumps(named).encode()


def _store(data: Path, *, is_sealed: bool = True, ids: tuple[str, ...] = ("r0", "r1")) -> None:
    """Make a folder with inferences, the first of them the subject's, and collect them."""
    settings = Settings(data=data)
    writer = SegmentWriter(data, signer=signer_of(settings))
    journal = SealingJournal(data, writer, _SEALED, position=writer.end) if is_sealed else None
    write = writer.write if journal is None else journal.write
    for request_id in ids:
        who = _MARKER if request_id == "r0" else f"somebody-{request_id}"
        for side in ("request", "response"):
            write(*_request(request_id, who, side)).result(100)
    if journal is not None:
        journal.close()
    writer.close()
    work_off(settings)


def _ids(data: Path) -> list[str]:
    documents = EmbeddedDocuments(data)
    inferences = Inferences(data, documents)
    try:
        return sorted(item.request_id for item in inferences.find(limit=1000)[0])
    finally:
        inferences.close()
        documents.close()


def _files_with(data: Path, text: str) -> list[str]:
    return [
        path.relative_to(data).as_posix()
        for path in sorted(data.rglob("*"))
        if path.is_file() and text.encode() in path.read_bytes()
    ]


def _run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _erase(data: Path, *what: object) -> Any:
    return _run("erase", "--deployment", _NAME, "--reason", "asked", "--data", data, *what)


def test_command_erases_and_verify_counts_it(tmp_path: Path) -> None:
    _store(tmp_path)
    result = _erase(tmp_path, "--subject", f"who={_MARKER}")

    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout.splitlines()[-1])
    assert (answer["state"], answer["inferences"], answer["keys"]) == ("done", 1, 2)
    assert _files_with(tmp_path, _MARKER) == []
    assert _ids(tmp_path) == ["r1"]
    verified = _run("verify", "--data", tmp_path)
    assert verified.exit_code == 0, verified.output
    assert "4 events sealed, 2 of them erased" in verified.output
    assert _erase(tmp_path, "--subject", f"who={_MARKER}").exit_code == 0


def test_verify_without_the_keys_does_not_say_how_many_are_erased(tmp_path: Path) -> None:
    _store(tmp_path)
    _erase(tmp_path, "--subject", f"who={_MARKER}")
    (tmp_path / "keys" / "wrapping.key").unlink()
    verified = _run("verify", "--data", tmp_path)

    assert verified.exit_code == 0, verified.output
    assert "sealed events were not opened: " in verified.output
    assert "4 events sealed, none of them opened, " in verified.output


def test_command_that_finds_nothing_says_so_and_takes_no_pattern(tmp_path: Path) -> None:
    _store(tmp_path)
    other = ("erase", "--request-id", "r0", "--reason", "x", "--data", tmp_path, "--deployment")
    nothing, pattern = (_run(*other, name) for name in ("prod/flihgts", "prod/*"))

    assert (nothing.exit_code, "nothing was found" in nothing.stderr) == (0, True)
    assert (pattern.exit_code, "the name of one deployment" in pattern.stderr) == (2, True)
    assert _ids(tmp_path) == ["r0", "r1"]


def test_command_tells_the_access_log_who_and_why_and_no_value(tmp_path: Path) -> None:
    _store(tmp_path)
    _erase(tmp_path, "--where", f"features.who = '{_MARKER}'", "--dry-run")
    (path,) = (tmp_path / "access").glob("log-*.jsonl")
    entry = json.loads(path.read_text().splitlines()[-1])

    assert entry["command"] == "erase"
    assert entry["reason"] == "asked"
    assert entry["caller"].startswith("user ")
    assert entry["parameters"]["columns"] == ["features.who"]
    assert _ids(tmp_path) == ["r0", "r1"]


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        (f"features.who = '{_MARKER}' and status = 200", "features.who = ? and status = ?"),
        (f"features.who = '{_MARKER}", "?"),
    ],
)
def test_queries_are_written_down_without_their_values(
    tmp_path: Path, where: str, kept: str
) -> None:
    _store(tmp_path)
    _run("query", "--data", tmp_path, "--where", where)
    (path,) = (tmp_path / "access").glob("log-*.jsonl")

    assert json.loads(path.read_text())["parameters"]["where"] == kept
    assert _MARKER not in path.read_text()


def test_command_takes_ids_from_a_file(tmp_path: Path) -> None:
    data = tmp_path / "data"
    _store(data)
    documents = EmbeddedDocuments(data)
    inferences = Inferences(data, documents)
    ids = [item.id for item in inferences.find()[0] if item.request_id == "r1"]
    inferences.close()
    documents.close()
    (tmp_path / "ids").write_text("\n".join(["", *ids, ""]))

    assert _erase(data, "--ids-from", tmp_path / "ids").exit_code == 0
    assert _ids(data) == ["r0"]


def test_command_names_plain_segments_and_ends_1(tmp_path: Path) -> None:
    _store(tmp_path, is_sealed=False)
    result = _erase(tmp_path, "--where", f"features.who = '{_MARKER}'")

    assert result.exit_code == 1
    assert "raw/00000000000000000000.seg stays for ever" in result.stderr
    assert _files_with(tmp_path, _MARKER) == ["raw/00000000000000000000.seg"]
    assert _ids(tmp_path) == ["r1"]


def test_events_that_came_while_erasure_was_not_configured_are_named(tmp_path: Path) -> None:
    _store(tmp_path)
    # A start without `erasure`, and later one with it again.
    assert sealing(Settings(data=tmp_path)) is None
    _store(tmp_path, is_sealed=False, ids=("r0",))
    _store(tmp_path, ids=("r5",))
    result = _erase(tmp_path, "--request-id", "r0")

    assert result.exit_code == 1
    assert result.stderr.count("stays for ever") == 1


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ((), "expected where"),
        (("--where", "features.who ="), "where"),
        (("--subject", "who"), "COLUMN=VALUE"),
        (("--ids-from", "/nowhere"), "--ids-from"),
    ],
)
def test_command_refuses_what_means_nobody(
    tmp_path: Path, what: tuple[str, ...], said: str
) -> None:
    _store(tmp_path)
    result = _erase(tmp_path, *what)

    assert result.exit_code == 2
    assert said in result.stderr
    assert len(_ids(tmp_path)) == 2


def test_command_on_hold_ends_2_and_names_it(tmp_path: Path) -> None:
    _store(tmp_path)
    hold = Holds(tmp_path).add(_NAME, reason="case 17", by="court")
    result = _erase(tmp_path, "--subject", f"who={_MARKER}")

    assert result.exit_code == 2
    assert hold.id in result.stderr
    assert len(_ids(tmp_path)) == 2


def test_command_asks_the_service_that_holds_the_folder(tmp_path: Path) -> None:
    _store(tmp_path)
    lock = FolderLock(tmp_path, "state")
    orders = ErasureOrders(tmp_path)
    ended = threading.Event()

    def service() -> None:
        while not ended.is_set():
            if (order := orders.next()) is not None:
                orders.close(ErasureAnswer(id=order.id, state="done", inferences=7))

    worker = threading.Thread(target=service)
    worker.start()
    try:
        result = _erase(tmp_path, "--subject", "who=x")
    finally:
        ended.set()
        worker.join()
        lock.close()

    assert json.loads(result.stdout.splitlines()[-1])["inferences"] == 7
    assert not list((tmp_path / "run" / "erasures").glob("*.order"))


def test_command_that_would_sign_with_another_key_is_refused(tmp_path: Path) -> None:
    _store(tmp_path)
    (tmp_path / "access" / "checkpoints.pem").unlink()
    result = _erase(tmp_path, "--subject", f"who={_MARKER}")

    assert result.exit_code == 2
    assert "--config" in result.stderr
    assert _run("verify", "--data", tmp_path).exit_code == 0


def test_command_that_does_not_know_the_search_server_is_refused(tmp_path: Path) -> None:
    _store(tmp_path)
    server = {"elasticsearch": {"url": "http://127.0.0.1:1"}}
    settings = Settings.model_validate({"data": tmp_path, "store": server})
    with closing(EmbeddedDocuments(tmp_path)) as documents:
        note_store(settings, documents)
    result = _erase(tmp_path, "--subject", f"who={_MARKER}")

    assert result.exit_code == 2
    assert "search server" in result.stderr
    assert "--config" in result.stderr
    assert len(_ids(tmp_path)) == 2


def test_order_over_the_api_is_worked_off_and_shown(
    folder: Any, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.ask([[1, "f"]], request_id="r1", minutes=1)
    folder.work()
    value = {"deployment": _NAME, "reason": "asked", "where": "features.age = 1", "wait": False}
    answer = api.post("/v1/erasures", value)
    erasure_id = answer.json()["id"]

    assert (answer.status_code, answer.json()["state"]) == (202, "running")
    assert api.get(f"/v1/erasures/{erasure_id}").status_code == 202
    orders = ErasureOrders(folder.data)
    order = orders.next()
    assert order is not None
    assert (order.by, order.reason, order.where) == ("local", "asked", "features.age = 1")
    orders.close(ErasureAnswer(id=order.id, state="held", detail="on hold"))
    # Who looks takes nothing away, whatever the method.
    path = f"/v1/erasures/{erasure_id}"
    assert [api.request(method, path).status_code for method in ("HEAD", "GET", "GET")] == [409] * 3
    assert api.get("/v1/erasures").json() == {"items": [], "next": None}
    monkeypatch.undo()


def test_order_over_the_api_is_written_down_without_its_values(folder: Any, api: Any) -> None:
    value = {"deployment": _NAME, "reason": "asked", "subject": f"who={_MARKER}", "wait": False}
    api.post("/v1/erasures", value)
    log = "".join(path.read_text() for path in (folder.data / "access").glob("log-*"))

    assert _MARKER not in log
    assert '"why":"asked"' in log


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ({"deployment": _NAME, "reason": " ", "where": "x = 1"}, 400),
        ({"deployment": _NAME, "reason": "r"}, 400),
        ({"deployment": "prod/*", "reason": "r", "where": "x = 1"}, 400),
        ({"deployment": _NAME, "reason": "r", "were": "x = 1"}, 400),
    ],
)
def test_wrong_order_over_the_api_is_refused(api: Any, value: dict[str, Any], status: int) -> None:
    assert api.problem("POST", "/v1/erasures", json=value)["status"] == status


def _transport(*answers: httpx.Response) -> httpx.MockTransport:
    left = list(answers)
    return httpx.MockTransport(lambda _: left.pop(0))


def test_remote_order_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidelight.service._erasing_remote._PAUSE_S", 0)
    running = ErasureAnswer(id="e", state="running").to_json()
    done = ErasureAnswer(id="e", state="done", inferences=3).to_json()
    transport = _transport(httpx.Response(202, json=running), httpx.Response(200, json=done))

    assert erase_remotely("http://x", None, {}, transport=transport).inferences == 3


@pytest.mark.parametrize(
    ("status", "kind"), [(409, OnHold), (400, BadRequest), (403, ServiceError)]
)
def test_remote_refusal_says_what_the_service_said(status: int, kind: type[Exception]) -> None:
    transport = _transport(httpx.Response(status, json={"detail": "no", "hint": "why"}))

    with pytest.raises(kind, match="no"):
        erase_remotely("http://x", None, {}, transport=transport)


def test_remote_address_and_token_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--url"):
        erase_remotely("x", None, {})
    with pytest.raises(ConfigurationError, match="--token-file"):
        erase_remotely("http://x", tmp_path / "none", {})


def test_older_backup_without_keys_has_nothing_of_the_subject(tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    _store(data)
    report = back_up(data, copy)
    assert report.findings == ()
    assert _files_with(copy, _MARKER) == []
    assert _run("verify", "--data", copy).exit_code == 0

    work_off(Settings(data=copy))
    assert _ids(copy) == []


def test_older_backup_with_the_keys_of_now_lacks_what_was_erased_since(tmp_path: Path) -> None:
    data, copy, keys = tmp_path / "data", tmp_path / "copy", tmp_path / "keys"
    _store(data)
    back_up(data, copy, keys=keys)
    _erase(data, "--subject", f"who={_MARKER}")
    back_up(data, tmp_path / "later", keys=keys)
    for path in keys.iterdir():
        (copy / "keys" / path.name).write_bytes(path.read_bytes())
    work_off(Settings(data=copy))

    assert _ids(copy) == ["r1"]
    assert _files_with(copy, _MARKER) == []


def test_backup_keeps_what_people_configured(tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    _store(data)
    _erase(data, "--subject", f"who={_MARKER}")
    back_up(data, copy)
    documents = EmbeddedDocuments(copy)

    assert len(documents.find("erasures")) == 1
    documents.close()


def test_keys_are_not_copied_into_the_copy_nor_over_something_else(tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    _store(data)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()

    with pytest.raises(ConfigurationError, match="apart"):
        back_up(data, copy, keys=copy / "keys")
    with pytest.raises(ServiceError, match="something else"):
        back_up(data, copy, keys=tmp_path / "other")
    assert not copy.exists()
    plain = tmp_path / "plain"
    _store(plain, is_sealed=False)
    with pytest.raises(ConfigurationError, match="sealed"):
        back_up(plain, copy, keys=tmp_path / "keys")


def test_replay_leaves_out_what_is_erased_and_seals_the_rest(tmp_path: Path) -> None:
    data, fresh = tmp_path / "data", tmp_path / "fresh"
    _store(data)
    _erase(data, "--subject", f"who={_MARKER}")
    settings = Settings.model_validate({"data": fresh, "erasure": {"deployments": [_NAME]}})
    report = replay_into(data, settings)

    assert (report.records, report.erased) == (3, 2)
    assert _ids(fresh) == ["r1"]
    assert _files_with(fresh / "raw", "somebody") == []
    # A folder with sealed events signs; a service that goes on with it finds nothing wrong.
    assert run_verify(fresh) == 0
    SegmentWriter(fresh, signer=signer_of(settings)).close()
    assert run_verify(fresh) == 0


def test_door_that_does_not_answer_is_said(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="the door does not answer"):
        _erasing.through_door(tmp_path)(b"head", b"body")


def test_an_answer_is_there_until_it_is_old_or_who_waited_took_it(tmp_path: Path) -> None:
    orders = ErasureOrders(tmp_path)
    kept, old, taken = (
        ErasureOrder(deployment=_NAME, by="me", reason="asked", where="x = 1") for _ in range(3)
    )
    for order in (kept, old, taken):
        orders.ask(order)
        orders.close(ErasureAnswer(id=order.id, state="found", inferences=2))
    os.utime(tmp_path / "run" / "erasures" / f"{old.id}.answer", (0, 0))
    seen = [orders.state(order.id) for order in (kept, old, taken)]
    orders.sweep()
    answer = orders.wait(taken, patience_s=0)

    assert seen == [
        (_NAME, ErasureAnswer(id=order.id, state="found", inferences=2))
        for order in (kept, old, taken)
    ]
    assert answer == ErasureAnswer(id=taken.id, state="found", inferences=2)
    assert orders.state(kept.id) == seen[0]
    assert orders.state(old.id) is None
    assert orders.state(taken.id) is None


def test_an_answer_of_a_consumer_of_an_older_version_is_read(tmp_path: Path) -> None:
    orders = ErasureOrders(tmp_path)
    answer = ErasureAnswer(id="erasure-0123456789ab", state="found")
    (tmp_path / "run" / "erasures").mkdir(parents=True)
    path = tmp_path / "run" / "erasures" / f"{answer.id}.answer"
    path.write_text(json.dumps(answer.to_json()))

    assert orders.state(answer.id) == ("", answer)
    assert orders.answer(answer.id) == answer


def test_an_order_that_a_kill_left_half_written_goes(tmp_path: Path) -> None:
    orders = ErasureOrders(tmp_path)
    order = ErasureOrder(deployment="prod/flights", by="me", reason="asked", where="x = 1")
    orders.ask(order)
    (path,) = (tmp_path / "run").rglob("*.order")
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], stdout=subprocess.PIPE, check=True
    )
    left = path.with_name(f"{path.name}.{int(ended.stdout)}.tmp")
    written_now = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    for unfinished in (left, written_now):
        unfinished.write_text("somebody")

    orders.sweep()

    assert (left.exists(), written_now.exists(), path.exists()) == (False, True, True)
