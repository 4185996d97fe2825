"""What the door stores of sealed deployments: unreadable on the disk, byte for byte for readers."""

import base64
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidelight.logger import EventRecord, parse
from sidelight.logger._key_eraser import KeyEraser
from sidelight.logger._key_ring import KeyRing
from sidelight.logger._key_slots import request_digest
from sidelight.logger._key_writer import KeyWriter
from sidelight.logger._sealed_body import seal_request
from sidelight.logger._sealed_erasure import tombstone_keys, tombstones
from sidelight.logger._sealed_marks import ERASED_HEAD, ERASED_TYPE, is_sealed
from sidelight.logger._sealed_records import SealedRecords
from sidelight.logger._sealed_verify import verify_sealed
from sidelight.logger._sealing import SealingJournal, SealingSettings
from sidelight.logger._segments import SegmentReader, SegmentWriter
from sidelight.logger.errors import JournalError, JournalFull, SealingKeyError

_EVERYTHING = SealingSettings(deployments=("*",))
_WIRE = Path("tests/wire")
_HEAD = (
    b"POST /events HTTP/1.1\r\nce-specversion: 1.0\r\nce-source: /s\r\nce-id: %s\r\n"
    b"ce-type: org.kubeflow.serving.inference.request\r\nce-namespace: prod\r\n"
    b"ce-inferenceservicename: %s\r\n\r\n"
)


def _samples() -> list[Any]:
    found = []
    for path in sorted(_WIRE.glob("*.json")):
        http = json.loads(path.read_text()).get("http")
        if http is not None and "body" in http:
            found.append(pytest.param(http, id=path.stem))
    return found


def _request(http: dict[str, Any]) -> tuple[bytes, bytes]:
    lines = [f"{http.get('method', 'POST')} {http.get('path', '/')} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in http["headers"]]
    body = http["body"]
    text = body.get("text", body.get("base64", body.get("data", "")))
    raw = text.encode() if body["encoding"] == "utf8" else base64.b64decode(text)
    return "\r\n".join(lines).encode() + b"\r\n\r\n", raw


class _Folder:
    """An archive with a sealing journal before it, closed after each use."""

    def __init__(self, data: Path, settings: SealingSettings = _EVERYTHING) -> None:
        self.data = data
        self.settings = settings
        self.erased_again = 0

    def store(self, *requests: tuple[bytes, bytes]) -> list[JournalError | None]:
        errors: list[JournalError | None] = []
        writer = SegmentWriter(self.data)
        journal = SealingJournal(self.data, writer, self.settings, position=writer.end)
        try:
            for head, body in requests:
                journal.append(head, body, lambda _, error: errors.append(error))
        finally:
            journal.close()
            writer.close()
        self.erased_again += journal.erased_again
        return errors

    def records(self, *, opens: bool = True) -> list[EventRecord]:
        reader = SegmentReader(self.data, opens=opens)
        try:
            return reader.read(0, max_records=1000, max_bytes=1 << 30) if reader.end() else []
        finally:
            reader.close()

    def erase(self, *requests: tuple[str, str], tells: bool = True) -> None:
        ring = KeyRing(self.data).load()
        assert ring is not None
        eraser = KeyEraser(self.data)
        numbers = eraser.close_requests(
            {request_digest(ring.digest_key, *request) for request in requests}
        )
        if tells:
            writer = SegmentWriter(self.data)
            facts = {"erasure": "e1", "by": "me", "reason": "asked", "time": "2026-01-01T00:00:00Z"}
            for stone in tombstones(numbers, deployment=requests[0][0], **facts):
                writer.write(*stone.request(ring.digest_key)).result()
            writer.close()
        eraser.destroy(numbers)


def _single(request_id: str, *, name: str = "flights", body: bytes = b"") -> tuple[bytes, bytes]:
    content = body or b'{"instances": [[1]], "who": "marker-%s"}' % request_id.encode()
    return _HEAD % (request_id.encode(), name.encode()), content


def _batch(*ids: str) -> tuple[bytes, bytes]:
    members = [
        {
            "specversion": "1.0",
            "type": "org.kubeflow.serving.inference.request",
            "source": "/s",
            "id": request_id,
            "namespace": "prod",
            "inferenceservicename": "flights",
            "data": {"instances": [[1]], "who": f"marker-{request_id}"},
        }
        for request_id in ids
    ]
    head = b"POST /events HTTP/1.1\r\ncontent-type: application/cloudevents-batch+json\r\n\r\n"
    return head, json.dumps(members, indent=1).encode()


@pytest.mark.parametrize("http", _samples())
def test_every_sample_comes_back_byte_for_byte(tmp_path: Path, http: dict[str, Any]) -> None:
    head, body = _request(http)
    folder = _Folder(tmp_path)

    assert folder.store((head, body)) == [None]
    (stored,) = folder.records(opens=False)
    assert is_sealed(stored.body)
    (opened,) = folder.records()
    if b"application/cloudevents-batch" in head.lower() and b"content-encoding" in head.lower():
        assert parse(opened)[0]  # a compressed batch is stored as its text
    else:
        assert (opened.head, opened.body) == (head, body)


def test_nothing_of_a_sealed_event_is_in_any_file_but_what_may_stay(tmp_path: Path) -> None:
    folder = _Folder(tmp_path)
    folder.store(_single("r1"), _batch("r2", "r3"))
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    assert b"marker" not in files
    assert b"ce-id" not in files
    assert b"ce-inferenceservicename: flights" in files


def test_other_deployments_are_stored_as_they_came(tmp_path: Path) -> None:
    folder = _Folder(tmp_path, SealingSettings(deployments=("prod/flights", "dev/*")))
    folder.store(_single("r1", name="other"), _single("r2"))
    sealed = {record.head: is_sealed(record.body) for record in folder.records(opens=False)}

    assert sorted(sealed.values()) == [False, True]
    assert sealed[_single("r1", name="other")[0]] is False


@pytest.mark.parametrize(
    ("names", "deployment", "expected"),
    [
        (("prod/flights",), "prod/flights", True),
        (("prod/*",), "prod/flights", True),
        (("*",), "prod/flights", True),
        (("prod/fl", "dev/*"), "prod/flights", False),
    ],
)
def test_names_say_what_is_sealed(
    names: tuple[str, ...],
    deployment: str,
    expected: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    assert SealingSettings(deployments=names).covers(deployment) is expected


def test_erased_member_of_a_batch_is_gone_and_the_others_keep_their_numbers(
    tmp_path: Path,
) -> None:
    folder = _Folder(tmp_path)
    folder.store(_batch("r1", "r2", "r3"))
    folder.erase(("prod/flights", "r2"))
    events, rejected = parse(folder.records()[0])

    assert [(event.id, event.ref.index) for event in events if event.type != ERASED_TYPE] == [
        ("r1", 0),
        ("r3", 2),
    ]
    assert not rejected
    assert b"marker-r2" not in folder.records()[0].body


def test_erased_event_is_one_that_nobody_does_anything_with(tmp_path: Path) -> None:
    folder = _Folder(tmp_path)
    folder.store(_single("r1"), _single("r2"))
    folder.erase(("prod/flights", "r1"))
    first, second, _ = folder.records()

    assert first.head == ERASED_HEAD
    assert second.body == _single("r2")[1]


def test_labels_of_several_requests_in_one_event_go_with_any_of_them(tmp_path: Path) -> None:
    items = [
        {"deployment": "prod/flights", "request_id": name, "labels": {"late": name}}
        for name in ("r1", "r2")
    ]
    head = (
        b"POST /events HTTP/1.1\r\nce-specversion: 1.0\r\nce-source: /s\r\nce-id: f\r\n"
        b"ce-type: io.sidelight.feedback\r\n\r\n"
    )
    folder = _Folder(tmp_path, SealingSettings(deployments=("prod/flights",)))
    folder.store((head, json.dumps(items).encode()))
    assert is_sealed(folder.records(opens=False)[0].body)
    folder.erase(("prod/flights", "r2"))

    assert folder.records()[0].head == ERASED_HEAD
    assert verify_sealed(tmp_path).findings == ()


def test_what_comes_again_is_stored_so_that_nobody_can_read_it(tmp_path: Path) -> None:
    folder = _Folder(tmp_path)
    folder.store(_single("r1"))
    folder.erase(("prod/flights", "r1"))
    folder.store(_single("r1"), _single("r2"))
    opened = folder.records()
    report = verify_sealed(tmp_path)

    assert folder.erased_again == 1
    assert [record.head == ERASED_HEAD for record in opened] == [True, False, True, False]
    assert (report.sealed, report.erased, report.findings) == (3, 2, ())


def test_key_that_went_without_a_tombstone_is_a_finding(tmp_path: Path) -> None:
    folder = _Folder(tmp_path)
    folder.store(_single("r1"), _batch("r2", "r3"))
    folder.erase(("prod/flights", "r3"), tells=False)

    assert verify_sealed(tmp_path).findings == (
        "raw: record 1 member 1: its key is gone and no erasure says so",
    )


def test_tombstone_that_somebody_else_made_is_not_believed(tmp_path: Path) -> None:
    folder = _Folder(tmp_path)
    folder.store(_single("r1"))
    ring = KeyRing(tmp_path).load()
    assert ring is not None
    digest = request_digest(ring.digest_key, "prod/flights", "r1")
    eraser = KeyEraser(tmp_path)
    numbers = eraser.close_requests({digest})
    facts = {"erasure": "e", "by": "me", "reason": "asked", "time": "2026-01-01T00:00:00Z"}
    (stone,) = tombstones(numbers, deployment="prod/flights", **facts)
    folder.store(stone.request(b"another"))
    eraser.destroy(numbers)

    assert len(verify_sealed(tmp_path).findings) == 1
    assert tombstone_keys(*stone.request(b"own"), b"own") == frozenset(numbers)


def test_key_that_opens_nothing_is_a_finding(tmp_path: Path) -> None:
    folder = _Folder(tmp_path)
    folder.store(_single("r1"))
    (path,) = (tmp_path / "keys").glob("*.keys")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    assert verify_sealed(tmp_path).findings == (
        "raw: record 0 member 0: a part does not open with its key",
    )
    assert folder.records()[0].head == ERASED_HEAD


def test_sealed_events_without_their_keys_stop_a_reader(tmp_path: Path) -> None:
    folder = _Folder(tmp_path)
    folder.store(_single("r1"))
    (tmp_path / "keys" / "ring").unlink()

    assert verify_sealed(tmp_path).findings == (
        "keys: is missing, with what opens the sealed events",
    )
    with pytest.raises(SealingKeyError, match="keys/apart"):
        folder.records()


def test_keys_that_are_kept_apart_leave_nothing_to_read(tmp_path: Path) -> None:
    folder = _Folder(tmp_path)
    folder.store(_single("r1"))
    for path in (tmp_path / "keys").iterdir():
        path.unlink()
    (tmp_path / "keys" / "apart").touch()
    report = verify_sealed(tmp_path)

    assert folder.records()[0].head == ERASED_HEAD
    assert (report.findings, report.unchecked) == ((), "the keys are kept apart from this copy")


def test_new_keys_beside_lost_ones_open_nothing_of_the_former(tmp_path: Path) -> None:
    folder = _Folder(tmp_path)
    folder.store(_single("r1"))
    for path in (tmp_path / "keys").iterdir():
        path.unlink()
    folder.store(_single("r2"))

    assert [record.head == ERASED_HEAD for record in folder.records()] == [True, False]


def test_compressed_batch_can_lose_one_member(tmp_path: Path) -> None:
    head, body = _batch("r1", "r2")
    head = head[:-2] + b"Content-Encoding: gzip\r\n\r\n"
    folder = _Folder(tmp_path)
    folder.store((head, gzip.compress(body)))
    folder.erase(("prod/flights", "r1"))
    events, rejected = parse(folder.records()[0])

    assert [event.id for event in events if event.type != ERASED_TYPE] == ["r2"]
    assert not rejected


def test_bad_member_of_a_batch_stays_in_its_place(tmp_path: Path) -> None:
    head, body = _batch("r1")
    body = b'[{"a": 1}, ' + body.strip()[1:]
    folder = _Folder(tmp_path)
    folder.store((head, body))
    opened = folder.records()[0]

    assert opened.body == body
    assert [event.ref.index for event in parse(opened)[0]] == [1]


def test_batch_that_is_read_as_one_event_is_sealed_as_one(tmp_path: Path) -> None:
    head, _ = _single("r1")
    head = head[:-2] + b"content-type: application/cloudevents-batch+json\r\n\r\n"
    folder = _Folder(tmp_path)
    folder.store((head, b"[[1, 2]]"))

    assert folder.records()[0].body == b"[[1, 2]]"


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_disk_that_is_full_for_keys_refuses_the_events_and_takes_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _Folder(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("sidelight.logger._key_writer.write_all", _full)
        errors = folder.store(_single("r1"), _single("r2"))

    assert [type(error) for error in errors] == [JournalFull, JournalFull]
    assert folder.records() == []
    assert folder.store(_single("r1")) == [None]


def test_request_that_cannot_be_sealed_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _Folder(tmp_path)
    sound: Callable[..., Any] = parse

    def failing(record: EventRecord, *rest: Any) -> Any:
        if b"r1" in record.body:
            raise LookupError
        return sound(record, *rest)

    monkeypatch.setattr("sidelight.logger._sealing.parse", failing)

    errors = folder.store(_single("r1"), _single("r2"))
    assert [error is None for error in errors] in ([True, False], [False, True])
    assert len(folder.records()) == 1


def test_request_that_cannot_be_encrypted_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _Folder(tmp_path)
    sound: Callable[..., Any] = seal_request

    def failing(head: bytes, body: bytes, keys: Any) -> Any:
        if b"r1" in body:
            raise MemoryError
        return sound(head, body, keys)

    monkeypatch.setattr("sidelight.logger._sealing.seal_request", failing)

    errors = folder.store(_single("r1"), _single("r2"))
    assert sorted(error is None for error in errors) == [False, True]
    assert folder.records()[0].body == _single("r2")[1]


def test_folder_says_that_older_versions_cannot_read_it(tmp_path: Path) -> None:
    _Folder(tmp_path).store(_single("r1"))

    assert (tmp_path / "format").read_text() == "6\n"


def test_records_that_are_not_sealed_are_returned_as_they_are(tmp_path: Path) -> None:
    records = [EventRecord(partition=0, position=0, received_ns=1, head=b"h", body=b"b")]

    assert SealedRecords(tmp_path).opened(records) is records


def test_keys_of_a_kill_before_the_segment_do_no_harm(tmp_path: Path) -> None:
    folder = _Folder(tmp_path)
    folder.store(_single("r1"))
    writer = KeyWriter(tmp_path, _EVERYTHING.source)
    writer.make([b"d" * 16])
    writer.close()

    assert verify_sealed(tmp_path).findings == ()
