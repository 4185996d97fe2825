"""The first stage: each event once, and what nobody foresaw costs nothing but itself."""

import base64
import gzip
import json
import math
from typing import Any

import pytest

from sidelight.adapters import Decoder
from sidelight.logger import Meeting, scan
from sidelight.logger.errors import JournalError
from sidelight.payloads import RawRef
from sidelight.service._inventory import Inventory

BATCH = "application/cloudevents-batch+json"


def _poison_decoder(monkeypatch: pytest.MonkeyPatch, *request_ids: str) -> None:
    """Let the decoder fail, as a bug would, on the inferences with these request ids."""
    decode = Decoder.decode

    def failing(self: Decoder, pairs: Any) -> Any:
        pairs = list(pairs)
        whole = [pair.pair() if isinstance(pair, Meeting) else pair for pair in pairs]
        if any(pair.key.request_id in request_ids for pair in whole):
            raise KeyError("a bug")
        return decode(self, pairs)

    monkeypatch.setattr(Decoder, "decode", failing)


def _stored(folder: Any) -> float:
    return float(folder.counter("inferences_total"))


def test_counters_are_what_was_sent(folder: Any) -> None:
    for number in range(7):
        folder.ask([[number, "f"], [number, "m"]])
    folder.half("request", {"instances": [[1]]}, request_id="again")
    folder.half("request", {"instances": [[1]]}, request_id="again")
    folder.half("request", {"instances": [[2]]}, request_id="again")

    folder.work()

    assert folder.counter("events_received_total", kind="request") == 10
    assert folder.counter("events_received_total", kind="response") == 7
    assert _stored(folder) == 7
    assert folder.counter("inference_rows_total") == 14
    assert folder.counter("duplicate_events_total") == 1
    assert folder.counter("key_reused_events_total") == 1


@pytest.mark.parametrize("bad", [0, 1, 7, 12])
def test_an_inference_that_fails_is_alone_in_quarantine(
    folder: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, bad: int
) -> None:
    _poison_decoder(monkeypatch, f"r{bad:06d}")
    for number in range(13):
        folder.ask([[number, "f"]])

    folder.work()

    assert _stored(folder) == 12
    assert folder.counter("quarantined_events_total", reason="internal") == 2
    assert {item["ref"] for item in folder.quarantine()} == {f"0-{2 * bad}-0", f"0-{2 * bad + 1}-0"}
    assert {item["got"] for item in folder.quarantine()} == {"KeyError"}
    assert "inference given up" in caplog.text
    assert folder.journals.positions("decoding", "events") == folder.journals.ends("events")


def test_rows_are_noted_once_when_others_fail(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _poison_decoder(monkeypatch, "r000001")
    for number in range(4):
        folder.ask([[number, "f"]])
    folder.work()

    assert folder.documents.get("deployments", "prod/flights")["rows_seen"] == 3


def test_several_that_fail_are_all_found_and_what_comes_later_is_taken(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _poison_decoder(monkeypatch, "r000002", "r000003", "r000030")
    for number in range(40):
        folder.ask([[number, "f"]])
    folder.work()
    folder.ask([[1, "f"]])
    folder.work()

    assert _stored(folder) == 38
    assert folder.counter("quarantined_events_total", reason="internal") == 6
    assert folder.counter("events_received_total") == 38 * 2 + 6


def test_one_bad_member_costs_its_batch_nothing(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _poison_decoder(monkeypatch, "b1")
    members = [
        {
            "specversion": "1.0",
            "id": f"b{number}",
            "source": "/x",
            "type": f"org.kubeflow.serving.inference.{side}",
            "namespace": "prod",
            "inferenceservicename": "flights",
            "data": {"instances": [[1]]} if side == "request" else {"predictions": [2]},
        }
        for number in range(3)
        for side in ("request", "response")
    ]
    headers = {"content-type": "application/cloudevents-batch+json"}
    folder.put(headers, json.dumps(members).encode())

    folder.work()

    assert _stored(folder) == 2
    assert {item["ref"] for item in folder.quarantine()} == {"0-0-2", "0-0-3"}


def test_a_half_that_fails_when_it_is_given_up_does_not_stop_the_clock(
    make_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(orphan_after_s=0.0)
    _poison_decoder(monkeypatch, "alone")
    folder.half("request", {"instances": [[1]]}, request_id="alone")
    folder.half("request", {"instances": [[1]]}, request_id="sound")
    for number in range(3):
        folder.ask([[number, "f"]])

    # By the journal's time, and by the clock when nothing comes any more.
    folder.work()
    folder.now_ns += 10**18
    folder.work()

    assert folder.counter("quarantined_events_total", reason="internal") == 1
    assert folder.decoding._pairing.n_waiting == 0
    orphans = folder.counter("orphans_total") - folder.counter("orphans_completed_total")
    assert _stored(folder) * 2 + orphans == folder.counter("events_received_total") - 1


def test_a_record_that_cannot_even_be_parsed_is_passed_over(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(records: Any, limits: Any) -> Any:
        listed = list(records)
        if any(b"poison" in record.body for record in listed):
            raise ZeroDivisionError
        return scan(listed, limits)

    monkeypatch.setattr("sidelight.service._stage_decoding.scan", failing)
    folder.ask([[1, "f"]])
    folder.half("request", b"poison", request_id="p")
    folder.ask([[2, "f"]])

    folder.work()

    assert _stored(folder) == 2
    (item,) = folder.quarantine()
    assert (item["ref"], item["reason"], item["got"]) == ("0-2-0", "internal", "ZeroDivisionError")
    record = folder.journals.event(RawRef(partition=0, position=2))
    assert record.body == b"poison"


def test_what_fails_only_once_is_not_quarantined(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    note, failures = Inventory.note, [MemoryError()]

    def failing(self: Inventory, batches: Any) -> Any:
        if failures:
            raise failures.pop()
        return note(self, batches)

    monkeypatch.setattr(Inventory, "note", failing)
    for number in range(5):
        folder.ask([[number, "f"]])

    folder.work()

    assert _stored(folder) == 5
    assert folder.quarantine() == []
    assert folder.counter("events_received_total") == 10


def test_a_clock_that_is_set_back_stops_no_stage(folder: Any) -> None:
    folder.ask([[1, "f"]])
    folder.work()
    folder.now_ns -= 3600 * 10**9
    folder.ask([[2, "f"]])
    folder.work()

    assert _stored(folder) == 2
    assert folder.counter("detector_rows_total") == 2


def test_a_commit_that_fails_is_no_reason_to_quarantine(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Any) -> None:
        raise JournalError("no room")

    folder.ask([[1, "f"]])
    monkeypatch.setattr(folder.journals, "commit", full)

    with pytest.raises(JournalError):
        folder.decoding.step(folder.now_ns)
    monkeypatch.undo()
    folder.decoding.reset()
    folder.work()

    assert (_stored(folder), folder.quarantine()) == (1, [])


@pytest.mark.parametrize(
    "item",
    [
        pytest.param({"request_id": "\ud800", "labels": {"y": 1}}, id="request_id"),
        pytest.param({"request_id": "r", "labels": {"\ud800": 1}}, id="label"),
        pytest.param({"request_id": "r", "labels": {"y": "\ud800"}}, id="value"),
        pytest.param({"request_id": "r", "labels": {"y": 1}, "deployment": "a/\ud800"}, id="name"),
    ],
)
def test_half_a_surrogate_in_labels_is_quarantined_and_the_rest_goes_on(
    folder: Any, item: dict[str, Any]
) -> None:
    headers = {"ce-specversion": "1.0", "ce-type": "io.sidelight.feedback", "ce-source": "/x"}
    good = {"deployment": "a/b", "request_id": "r", "labels": {"y": 1}}
    folder.put(headers | {"ce-id": "1"}, json.dumps([{"deployment": "a/b"} | item, good]).encode())
    folder.ask([[1, "f"]])

    folder.work()

    assert _stored(folder) == 1
    assert folder.documents.get("labels", "a/b|r|0")["labels"] == {"y": 1}
    assert folder.counter("quarantined_events_total", reason="labels") == 1


@pytest.mark.parametrize(
    "name", ["a\ud800", "a/b", "a\nb", "<b>", "é" * 300, "..", "a%2Fb", "\x00"]
)
def test_any_name_in_an_envelope_is_worked_on(folder: Any, name: str) -> None:
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "/x",
        "type": "org.kubeflow.serving.inference.request",
        "namespace": name,
        "inferenceservicename": name,
        "data": {"instances": [[1]]},
    }
    headers = {"content-type": "application/cloudevents+json"}
    folder.put(headers, json.dumps(event).encode())
    response = event | {"type": "org.kubeflow.serving.inference.response", "data": {"y": 1}}
    folder.put(headers, json.dumps(response).encode())
    folder.ask([[1, "f"]])

    folder.work()

    kept = _stored(folder) * 2 + folder.counter("quarantined_events_total")
    assert kept == 4
    assert folder.counter("inferences_total", deployment="flights") == 1


def test_of_labels_for_one_row_the_later_time_wins_whatever_comes_first(folder: Any) -> None:
    headers = {"ce-specversion": "1.0", "ce-type": "io.sidelight.feedback", "ce-source": "/x"}
    base = {"deployment": "a/b", "request_id": "r"}
    for number, (time, labels) in enumerate(
        [
            ("2013-01-01T12:00:00.5Z", {"late": 1, "only": "old"}),
            ("2013-01-01T12:00:00Z", {"late": 0}),
            ("2013-01-01T14:00:00+02:00", {"late": 0}),
        ]
    ):
        item = base | {"time": time, "labels": labels}
        folder.put(headers | {"ce-id": f"{number}"}, json.dumps(item).encode())
        folder.work()

    assert folder.documents.get("labels", "a/b|r|0")["labels"] == {"late": 1, "only": "old"}


def test_opaque_payloads_are_one_feature(folder: Any) -> None:
    folder.half("request", b"\x00\xff garbage", request_id="g")
    folder.half("response", {"unknown": {"json": [1]}}, request_id="g")
    folder.half("request", gzip.compress(b'{"instances": [[1]]}')[:-9], request_id="t")
    folder.half("response", {"predictions": [1]}, request_id="t")

    folder.work()

    assert _stored(folder) == 2
    assert folder.counter("undecoded_events_total") == 3


def test_counters_never_hold_what_is_no_number(folder: Any) -> None:
    folder.half("request", {"instances": [[1]]}, request_id="r")
    folder.half("response", {"predictions": [1]}, request_id="r", latencyms="nan", statuscode="x")

    folder.work()

    assert all(math.isfinite(value) for value in folder.documents.counters().values())
    assert _stored(folder) == 1


def test_feedback_of_seldon_and_replies_of_detectors_are_published(folder: Any) -> None:
    names = {
        "ce-specversion": "1.0",
        "ce-source": "/x",
        "ce-namespace": "prod",
        "ce-inferenceservicename": "flights",
        "ce-requestid": "r9",
    }
    truth = {"truth": {"data": {"ndarray": [[1]]}}, "reward": 0.5}
    outlier = {"data": {"is_outlier": [0, 1]}, "meta": {"name": "od"}}
    for number, (kind, body) in enumerate(
        [("feedback", truth), ("inference.outlier", outlier), ("inference.outlier", outlier)]
    ):
        event_type = f"io.seldon.serving.{kind}"
        folder.put(
            {**names, "ce-type": event_type, "ce-id": str(number)}, json.dumps(body).encode()
        )

    folder.work()

    ((_, _, label),) = folder.documents.find("labels")
    assert (label["request_id"], label["labels"]) == ("r9", {"reward": 0.5, "y": 1})
    ((_, _, reply),) = folder.documents.find("replies")
    assert (reply["deployment"], reply["kind"], reply["rows"]) == ("prod/flights", "outlier", 2)


@pytest.mark.parametrize(("deployments", "later_ns"), [(1, 110_000_000), (40, 210_000_000)])
def test_where_deployments_are_many_more_is_gathered_before_a_step(
    folder: Any, deployments: int, later_ns: int
) -> None:
    for number in range(deployments):
        folder.ask([(20.0, 0.0)], deployment=f"prod/m{number}")
    begun_ns = folder.now_ns
    assert folder.decoding.step(begun_ns)
    folder.ask([(30.0, 1.0)])
    assert not folder.decoding.step(begun_ns + later_ns - 20_000_000)
    assert folder.decoding.step(begun_ns + later_ns)


@pytest.mark.parametrize(("deployments", "later_ns"), [(1, 510_000_000), (80, 810_000_000)])
def test_where_deployments_are_many_files_are_written_less_often(
    folder: Any, deployments: int, later_ns: int
) -> None:
    for number in range(deployments):
        folder.ask([(20.0, 0.0)], deployment=f"prod/m{number}")
    begun_ns = folder.now_ns
    assert folder.decoding.step(begun_ns)
    assert folder.storing.step(begun_ns)
    while folder.storing.step(begun_ns + 1):
        """Tidying up is a step as well."""
    folder.ask([(30.0, 1.0)])
    assert folder.decoding.step(begun_ns + 500_000_000)
    assert not folder.storing.step(begun_ns + later_ns - 20_000_000)
    assert folder.storing.step(begun_ns + later_ns)


def _spied_decoder(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which each decoding adds how many inferences it was given."""
    decode, given = Decoder.decode, []

    def spied(self: Decoder, pairs: Any) -> Any:
        listed = list(pairs)
        decoded = decode(self, listed)
        if listed:
            given.append(len(listed))
        return decoded

    monkeypatch.setattr(Decoder, "decode", spied)
    return given


def _swelling(number: int) -> bytes:
    """Return a body of a kilobyte that is 900 kB when it is inflated."""
    return gzip.compress(json.dumps({"instances": [[str(number) + "x" * 900_000]]}).encode())


@pytest.mark.parametrize("sides", [("request", "response"), ("request",)])
def test_bodies_that_swell_are_decoded_a_few_at_a_time_and_lose_nothing(
    make_folder: Any, monkeypatch: pytest.MonkeyPatch, sides: tuple[str, ...]
) -> None:
    monkeypatch.setattr("sidelight.service._stage_decoding._MAX_MEMORY", 4 << 20)
    folder = make_folder(orphan_after_s=5.0)
    folder.stages = [folder.decoding]
    given = _spied_decoder(monkeypatch)
    for number in range(12):
        for side in sides:
            folder.half(side, _swelling(number), request_id=f"r{number}")

    folder.work()
    folder.now_ns += 10**18
    folder.work()

    assert folder.counter("events_received_total") == 12 * len(sides)
    assert sum(given) == 12
    assert max(given) <= 4
    assert folder.counter("undecoded_events_total", reason="encoding_too_large") == 0
    assert folder.quarantine() == []


def test_members_of_one_batch_that_swell_are_decoded_a_few_at_a_time(
    make_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidelight.service._stage_decoding._MAX_MEMORY", 4 << 20)
    folder = make_folder()
    folder.stages = [folder.decoding]
    given = _spied_decoder(monkeypatch)
    members = [
        {
            "specversion": "1.0",
            "id": f"b{number}",
            "source": "/x",
            "type": f"org.kubeflow.serving.inference.{side}",
            "namespace": "prod",
            "inferenceservicename": "flights",
            "data_base64": base64.b64encode(_swelling(number)).decode(),
        }
        for number in range(6)
        for side in ("request", "response")
    ]
    folder.put({"content-type": BATCH}, json.dumps(members).encode())

    folder.work()

    assert sum(given) == 6
    assert max(given) <= 2
    assert folder.counter("undecoded_events_total", reason="encoding_too_large") == 0
    assert folder.counter("events_received_total") == 12
    assert folder.quarantine() == []


def test_requests_of_before_are_read_again_a_few_at_a_time(
    make_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidelight.service._stage_decoding._MAX_MEMORY", 4 << 20)
    folder = make_folder()
    for number in range(12):
        folder.half("request", {"instances": [["x" * 900_000]]}, request_id=f"r{number}")
    folder.stages = [folder.decoding]
    folder.work()
    folder.begin()
    folder.stages = [folder.decoding]
    given = _spied_decoder(monkeypatch)
    for number in range(12):
        folder.half("response", {"predictions": [number]}, request_id=f"r{number}")

    folder.work()

    assert sum(given) == 12
    assert max(given) <= 4


def test_very_many_bad_members_are_counted_and_few_of_them_noted(folder: Any) -> None:
    good = {
        "specversion": "1.0",
        "id": "g",
        "source": "/x",
        "type": "org.kubeflow.serving.inference.request",
    }
    members = [*[{}] * 3000, *[good | {"specversion": ""}] * 200, *[{}] * 3000, good]
    folder.put({"content-type": BATCH}, json.dumps(members).encode())

    folder.work()

    notes = list(folder.documents.find("quarantine", limit=10_000))
    assert folder.counter("quarantined_events_total") == 6200
    assert folder.counter("events_received_total") == 1
    assert len(notes) == 1001
    assert sum(value.get("members", 1) for _, _, value in notes) == 6200
