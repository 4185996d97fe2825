"""Erasures on the running service: after them nobody reads the subject, whatever was killed."""

import json
import random
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from tests.services.conftest import run_command, wait_until

if TYPE_CHECKING:
    from tests.services.conftest import Service

_NAME = "prod/flights"
_MARKER = "marker-of-the-subject"
_CONFIG = {
    "erasure": {"deployments": [_NAME]},
    "deployments": [{"name": _NAME, "reference": {"first_rows": 50}}],
}
_INFERENCES = 80
_SUBJECT = frozenset({3, 20, 77})
_KILLS = 4
_PATIENCE_S = 240.0


def _send(
    service: "Service", number: int, *, sides: tuple[str, ...] = ("request", "response")
) -> None:
    who = _MARKER if number in _SUBJECT else f"somebody-{number % 7}"
    tensor = {"name": "who", "shape": [1], "datatype": "BYTES", "data": [who]}
    for side in sides:
        payload = {"inputs": [tensor]} if side == "request" else {"outputs": [tensor]}
        headers = {
            "ce-specversion": "1.0",
            "ce-type": f"org.kubeflow.serving.inference.{side}",
            "ce-source": "/x",
            "ce-id": f"r{number}",
            "ce-namespace": "prod",
            "ce-inferenceservicename": "flights",
            "content-type": "application/json",
        }
        answer = service.client.post(service.url, json=payload, headers=headers)
        assert answer.status_code == 200


def _erase(service: "Service", *what: str) -> subprocess.CompletedProcess[str]:
    return run_command(
        *("erase", "--data", str(service.data), "--deployment", _NAME),
        *("--subject", f"who={_MARKER}", "--reason", "asked", *what),
        timeout_s=_PATIENCE_S,
    )


def _without_scores(item: dict[str, Any]) -> dict[str, Any]:
    """Return an inference without its outlier scores, which come a little later than it."""
    return item | {"rows": [row | {"outlier_score": None} for row in item["rows"]]}


def _files_with(data: Path, text: str) -> list[str]:
    found = []
    for path in sorted(data.rglob("*")):
        # A running service deletes files, merged ones for instance.
        with suppress(FileNotFoundError):
            if path.is_file() and text.encode() in path.read_bytes():
                found.append(path.relative_to(data).as_posix())
    return found


def test_erased_subject_is_nowhere_and_the_others_are_untouched(
    start_service: "Callable[..., Service]", tmp_path: Path
) -> None:
    service = start_service(config=_CONFIG)
    for number in range(_INFERENCES):
        _send(service, number)
    before = {item["id"]: item for item in service.wait_stored(_INFERENCES)}
    gone = {item["id"] for item in before.values() if int(item["request_id"][1:]) in _SUBJECT}
    copy = tmp_path / "copy"
    copied = service.command("export", "--backup", str(copy))
    assert copied.returncode == 0, copied.stdout + copied.stderr

    done = _erase(service)
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])

    assert (answer["inferences"], answer["keys"]) == (3, 6)
    assert _files_with(service.data, _MARKER) == []
    assert _files_with(copy, _MARKER) == []
    for inference_id in gone:
        path = f"{service.url}/v1/inferences/{inference_id}"
        assert service.client.get(path).status_code in {404, 410}
    after = {item["id"]: item for item in service.get_all("/v1/inferences")}
    left = {name: of for name, of in before.items() if name not in gone}
    assert after.keys() == left.keys()
    assert {name: _without_scores(of) for name, of in after.items()} == {
        name: _without_scores(of) for name, of in left.items()
    }
    # What comes again is not readable either, and the service goes on.
    _send(service, 3)
    _send(service, _INFERENCES)
    wanted = _INFERENCES + 1 - len(_SUBJECT)
    wait_until(
        lambda: len(service.get_all("/v1/inferences")) >= wanted,
        "it goes on",
        timeout_s=_PATIENCE_S,
    )
    assert _files_with(service.data, _MARKER) == []
    assert service.stop() == 0
    verified = service.command("verify")
    assert verified.returncode == 0, verified.stdout
    assert f"{2 * (_INFERENCES + 2)} events sealed, 8 of them erased" in verified.stdout


def test_service_that_is_killed_while_it_erases_ends_in_the_same_state(
    start_service: "Callable[..., Service]",
) -> None:
    service = start_service(config=_CONFIG)
    for number in range(_INFERENCES):
        _send(service, number)
    service.wait_stored(_INFERENCES)
    dice = random.Random(17)
    for _ in range(_KILLS):
        asking = threading.Thread(target=_post, args=(service,))
        asking.start()
        # Not to synchronise: where it is killed is left to chance.
        time.sleep(dice.uniform(0.05, 0.9))
        service.kill()
        asking.join()
        service.start()

    done = _erase(service)
    assert done.returncode == 0, done.stdout + done.stderr
    assert _files_with(service.data, _MARKER) == []
    items = service.get_all("/v1/inferences")
    assert len(items) == _INFERENCES - len(_SUBJECT)
    erasures = service.get("/v1/erasures")["items"]
    assert {item["state"] for item in erasures} == {"done"}
    assert service.stop() == 0
    verified = service.command("verify")
    assert verified.returncode == 0, verified.stdout
    assert f"{2 * _INFERENCES} events sealed, 6 of them erased" in verified.stdout


def _post(service: "Service") -> None:
    value = {"deployment": _NAME, "subject": f"who={_MARKER}", "reason": "asked", "wait": False}
    # It may be killed before it can answer.
    with suppress(httpx.HTTPError):
        service.client.post(f"{service.url}/v1/erasures", json=value)
