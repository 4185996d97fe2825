"""What a step has room for changes how events are taken, never what becomes of them."""

import base64
import gzip
import json
import shutil
import tempfile
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.service.conftest import Folder

from sidelight.adapters import Decoder
from sidelight.logger import Commit, Meeting
from sidelight.logger.errors import JournalError
from sidelight.payloads import FEATURE_PREFIX, Batch
from sidelight.service._stage_decoding import DecodingStage

STRUCTURED = {"content-type": "application/cloudevents+json"}
BATCH = {"content-type": "application/cloudevents-batch+json"}
GZIP = {"content-encoding": "gzip"}
WIRES = ("structured", "structured gzip", "binary", "binary gzip", "payload gzip")
N = 12


def _event(side: str, name: str, payload: object, *, is_packed: bool = False) -> dict[str, Any]:
    text = json.dumps(payload).encode()
    event = {
        "specversion": "1.0",
        "id": name,
        "source": "/x",
        "type": f"org.kubeflow.serving.inference.{side}",
        "namespace": "prod",
        "inferenceservicename": "flights",
        "datacontenttype": "application/json",
    }
    if is_packed:
        return event | {"data_base64": base64.b64encode(gzip.compress(text)).decode()}
    return event | {"data": payload}


def _put(folder: Any, wire: str, events: list[dict[str, Any]]) -> None:
    """Keep one event, or a batch of them, as a sender of that kind writes it."""
    if wire.startswith("binary"):
        for event in events:
            attributes = {f"ce-{key}": value for key, value in event.items() if key != "data"}
            body, packed = json.dumps(event["data"]).encode(), wire.endswith("gzip")
            headers = {**attributes, "content-type": "application/json", **(GZIP if packed else {})}
            folder.put(headers, gzip.compress(body) if packed else body)
        return
    headers = STRUCTURED if len(events) == 1 else BATCH
    body = json.dumps(events[0] if len(events) == 1 else events).encode()
    if wire == "structured gzip":
        headers, body = headers | GZIP, gzip.compress(body)
    folder.put(headers, body)


def _rows(folder: Any) -> list[dict[str, Any]]:
    with folder.journals._database.read() as connection:
        payloads = connection.execute("SELECT payload FROM inferences ORDER BY position").fetchall()
    batches = [Batch.from_ipc(payload).records for (payload,) in payloads]
    return [row for batch in batches for row in batch.to_pylist()]


def _large(number: int) -> str:
    return f"{number:02d}" + "x" * 900_000


def _spied_decoder(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which each decoding adds how many inferences it was given."""
    decode, given = Decoder.decode, [0]

    def spied(self: Decoder, pairs: Any) -> Any:
        listed = list(pairs)
        decoded = decode(self, listed)
        given.append(len(listed))
        return decoded

    monkeypatch.setattr(Decoder, "decode", spied)
    return given


@pytest.mark.parametrize("answers_of", ["batch", "singly"])
@pytest.mark.parametrize("between", ["restart", ""])
@pytest.mark.parametrize("wire", WIRES)
def test_late_answers_to_large_requests_find_them_all(
    make_folder: Any, monkeypatch: pytest.MonkeyPatch, wire: str, between: str, answers_of: str
) -> None:
    monkeypatch.setattr("sidelight.service._stage_decoding._MAX_MEMORY", 4 << 20)
    folder = make_folder()
    folder.stages = [folder.decoding]
    for number in range(N):
        packed = wire == "payload gzip"
        payload = {"instances": [[_large(number)]]}
        _put(folder, wire, [_event("request", f"r{number}", payload, is_packed=packed)])
    folder.work()
    if between:
        folder.begin()
        folder.stages = [folder.decoding]
    given = _spied_decoder(monkeypatch)
    answers = [_event("response", f"r{number}", {"predictions": [number]}) for number in range(N)]
    for some in [answers] if answers_of == "batch" else [[answer] for answer in answers]:
        _put(folder, "structured", some)
    folder.work()

    rows = _rows(folder)
    assert [row["request_id"] for row in rows] == [f"r{number}" for number in range(N)]
    assert [row[FEATURE_PREFIX + "f0"] for row in rows] == [_large(number) for number in range(N)]
    assert {row["orphan"] for row in rows} == {None}
    assert folder.counter("unreadable_events_total") == 0
    assert folder.counter("undecoded_events_total") == 0
    assert folder.counter("events_received_total") == 2 * N
    assert folder.journals.positions("decoding", "events") == folder.journals.ends("events")
    assert list(folder.journals.scan("decoding", b"b")) == []
    assert max(given) <= 5 or not between


def test_members_of_one_record_that_fail_with_care_have_the_room_of_others(
    make_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidelight.service._stage_decoding._MAX_MEMORY", 4 << 20)
    folder = make_folder()
    folder.stages = [folder.decoding]
    decode = Decoder.decode

    def failing(self: Decoder, pairs: Any) -> Any:
        pairs = list(pairs)
        whole = [pair.pair() if isinstance(pair, Meeting) else pair for pair in pairs]
        if any(pair.key.request_id == "r5" for pair in whole):
            raise KeyError("a bug")
        return decode(self, pairs)

    monkeypatch.setattr(Decoder, "decode", failing)
    members = [
        _event(side, f"r{number}", payload, is_packed=side == "request")
        for number in range(N)
        for side, payload in (
            ("request", {"instances": [[_large(number)]]}),
            ("response", {"predictions": [number]}),
        )
    ]
    _put(folder, "structured", members)

    folder.work()

    assert [row["request_id"] for row in _rows(folder)] == [
        f"r{number}" for number in range(N) if number != 5
    ]
    assert folder.counter("undecoded_events_total") == 0
    assert folder.counter("events_received_total") == 2 * N
    assert {item["ref"] for item in folder.quarantine()} == {"0-0-10", "0-0-11"}


class _KilledError(JournalError):
    """A commit that fails, as if the process were gone."""


@st.composite
def _requests(draw: st.DrawFn) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return requests to the door: halves, duplicates, reused ids, labels, bad members."""
    said = st.tuples(
        st.sampled_from(["request", "response"]), st.integers(0, 6), st.integers(0, 12)
    )
    found = []
    for wire in draw(st.lists(st.sampled_from(WIRES), min_size=1, max_size=6)):
        events = []
        for side, name, size in draw(st.lists(said, min_size=1, max_size=12)):
            values = [[f"{size}" + "y" * (1000 * size)]]
            payload = {"instances" if side == "request" else "predictions": values}
            packed = wire == "payload gzip"
            events.append(_event(side, f"r{name}", payload, is_packed=packed))
            if not size and len(events) > 1 and not wire.startswith("binary"):
                events.append({"specversion": "1.0", "id": "bad"})
        found.append((wire, events))
    return found


@given(
    requests=_requests(),
    patience_s=st.sampled_from([0.0, 3600.0]),
    n_bytes=st.integers(1, 30_000),
    steps=st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["", "begin", "kill"]))),
)
@settings(max_examples=15, deadline=None, database=None)
def test_what_is_stored_and_counted_is_the_same_with_any_room_grouping_and_restart(
    requests: list[tuple[str, list[dict[str, Any]]]],
    patience_s: float,
    n_bytes: int,
    steps: list[tuple[int, str]],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Folder(Path(name) / "a")
        for wire, events in requests:
            _put(folder, wire, events)
        folder.close()
        # The same receive times.
        shutil.copytree(Path(name) / "a", Path(name) / "b")
        whole = _facts(Path(name) / "a", patience_s, 1 << 40, repeat((1000, "")))
        parts = _facts(Path(name) / "b", patience_s, n_bytes, chain(steps, repeat((1000, ""))))
    assert parts == whole


def _facts(
    data: Path, patience_s: float, n_bytes: int, steps: Iterator[tuple[int, str]]
) -> tuple[Any, ...]:
    """Return what became of everything, stepped with that room and so many records at once."""
    folder = Folder(data, orphan_after_s=patience_s)
    journals: Any = folder.journals
    read, commit = journals.read_events, journals.commit

    def begun() -> DecodingStage:
        folder.begin()
        folder.decoding._memory_bytes = n_bytes
        return folder.decoding

    def killed(_: Commit) -> None:
        raise _KilledError("killed")

    stage = begun()
    for _ in range(1000):
        most, what = next(steps)
        journals.read_events = lambda group, *, max_records, max_bytes, most=most: read(
            group, max_records=min(most, max_records), max_bytes=max_bytes
        )
        folder.now_ns += 10**9
        journals.commit = killed if what == "kill" else commit
        try:
            stage.step(folder.now_ns)
        except _KilledError:
            stage = begun()
        if what == "begin":
            stage = begun()
        if what == "" and journals.positions("decoding", "events") == journals.ends("events"):
            break
    else:
        pytest.fail("the stage does not come to an end")
    stage.give_up_waiting()
    found = (
        _rows(folder),
        folder.documents.counters(),
        folder.quarantine(),
        list(journals.scan("decoding", b"")),
        (folder.documents.get("deployments", "prod/flights") or {}).get("rows_seen"),
    )
    folder.close()
    return found
