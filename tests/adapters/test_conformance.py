"""Every golden sample of the wire: what is expected of it, and how its sender is answered."""

import base64
import copy
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidelight.adapters import Decoder, kserve_blob, sagemaker_capture, seldon_log
from sidelight.adapters._replies import detector_reply
from sidelight.logger import CapturedEvent, ConsumedRecord, identity, kind_of, parse, record_request
from sidelight.logger._door import Door, DoorLimits
from sidelight.logger._http import Request
from sidelight.logger._journal import EventRecord
from sidelight.logger._pairing import Pairing
from sidelight.logger._pairing_outcome import Pair
from sidelight.logger._segments import Done
from sidelight.payloads import Batch, Event

WIRE = Path(__file__).parents[1] / "wire"
SAMPLES = {path.stem: json.loads(path.read_text()) for path in sorted(WIRE.glob("*.json"))}
MODIFIED = "2026-05-01T10:00:11Z"

PLATFORMS = {
    "kserve": ("org.kubeflow.serving.",),
    "kserve-python": ("io.kserve.inference.",),
    "seldon-v1": ("io.seldon.serving.", "seldon."),
    "seldon-core2": ("io.sidelight.seldoncore2.",),
    "mlserver": ("io.sidelight.mlserver.", "io.seldon.serving."),
    "modelmesh": ("io.sidelight.modelmesh.",),
    "sagemaker": ("io.sidelight.sagemaker.",),
}
DTYPES = {
    "str": "string",
    "json": "string",
    "bytes": "string",
    "float32": "float",
    "float64": "double",
}


def content(value: dict[str, Any] | None) -> bytes | None:
    if value is None:
        return None
    return value["text"].encode() if "text" in value else base64.b64decode(value["base64"])


def head(headers: list[list[str]], path: str = "/", method: str = "POST") -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode()


def captured(kind: str, headers: list[list[str]], body: bytes, path: str) -> tuple[bytes, bytes]:
    """Return a call or an answer as our own proxy sends it on."""
    kept = {name.lower(): value for name, value in headers}
    attributes = [
        ["ce-specversion", "1.0"],
        ["ce-type", f"org.kubeflow.serving.inference.{kind}"],
        ["ce-source", "sidelight-proxy"],
        ["ce-id", "r1"],
        ["ce-namespace", "prod"],
        ["ce-inferenceservicename", "m"],
        ["ce-requestpath", path],
    ]
    if "content-type" in kept:
        attributes.append(["content-type", kept["content-type"]])
    if "inference-header-content-length" in kept:
        length = kept["inference-header-content-length"]
        attributes.append(["ce-inferenceheadercontentlength", length])
    return head(attributes), body


def imported(events: list[CapturedEvent]) -> Iterator[tuple[bytes, bytes]]:
    for event in events:
        yield head([["content-type", "application/cloudevents+json"]]), event.member()


def requests_of(sample: dict[str, Any]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the requests to the door that a sample stands for."""
    http, answer = sample.get("http", {}), sample.get("http_response", {})
    match sample["transport"]:
        case "http":
            yield (
                head(http["headers"], http["path"], http["method"]),
                content(http["body"]) or b"",
            )
        case "http-inference":
            yield captured("request", http["headers"], content(http["body"]) or b"", http["path"])
            if answer:
                yield captured("response", answer["headers"], content(answer["body"]) or b"", "")
        case "http-response":
            body = content(answer["body"]) or b""
            if any(name.lower().startswith("ce-") for name, _ in answer["headers"]):
                # A reply event; a broker sends it on to whoever is subscribed to its type.
                yield head(answer["headers"]), body
            elif body:
                yield captured("response", answer["headers"], body, "")
        case "kafka":
            record = sample["kafka"]
            yield record_request(
                ConsumedRecord(
                    topic=record["topic"],
                    partition=record["partition"],
                    offset=record["offset"],
                    key=None if record["key"] is None else record["key"].encode(),
                    value=content(record["value"]),
                    headers=[(name, value.encode()) for name, value in record["headers"]],
                    timestamp_ms=1_777_629_600_000,
                )
            )
        case "object-store" | "elasticsearch":
            yield from imported(stored_events(sample))


def stored_events(sample: dict[str, Any]) -> list[CapturedEvent]:
    """Return the events that a file, or a document, is imported as."""
    if "elasticsearch" in sample:
        stored = sample["elasticsearch"]
        hit = {"_id": stored["id"], "_source": stored["doc"]}
        return seldon_log(json.dumps(hit).encode())
    stored = sample["object"]
    data = content(stored["body"]) or b""
    if "kserve" in sample["tags"]:
        return kserve_blob(data, modified=MODIFIED)
    return sagemaker_capture(data, key=stored["key"])


class Read:
    """What became of one or several samples."""

    def __init__(self, *samples: dict[str, Any]) -> None:
        self.sample = samples[0]
        self._side = ""
        self.events: list[Event] = []
        self.rejected = 0
        for sample in samples:
            for stored_head, body in requests_of(sample):
                record = EventRecord(0, len(self.events), 1000, stored_head, body)
                events, rejected = parse(record)
                self.events += events
                self.rejected += len(rejected)
        pairing = Pairing(lambda _: None, orphan_after_ns=1)
        outcome = pairing.step(self.events, lambda _: {})
        decoder = Decoder()
        self.completed = sum(outcome.completed.values())
        self.duplicates = sum(outcome.duplicates.values())
        self.pairs: list[Pair] = [*outcome.whole(), *pairing.expire(10**9).whole()]
        self.decoded = decoder.decode(self.pairs)
        self.labels = [label for event in outcome.feedback for label in decoder.labels(event)[0]]
        self.replies = [reply for event in outcome.others if (reply := detector_reply(event))]

    @property
    def event(self) -> Event:
        return self.events[0]

    @property
    def batch(self) -> Batch:
        assert len(self.decoded.batches) == 1
        return self.decoded.batches[0]

    @property
    def side(self) -> str:
        """The half that a sample of one message is."""
        return self._side or self.pairs[0].orphan or "request"

    @property
    def answers(self) -> "Read":
        """The same, seen from its outputs."""
        other = copy.copy(self)
        other._side = "response"
        return other

    @property
    def columns(self) -> dict[str, list[Any]]:
        batch = self.batch
        if self.side == "response":
            return {name: batch.output(name).to_pylist() for name in batch.output_names}
        return {name: batch.feature(name).to_pylist() for name in batch.feature_names}

    @property
    def table(self) -> list[list[Any]]:
        """Rows, with the values of a list column spread."""
        return [
            [leaf for value in row for leaf in (value if isinstance(value, list) else [value])]
            for row in zip(*self.columns.values(), strict=True)
        ]

    @property
    def layout(self) -> dict[str, Any]:
        return dict(self.batch.layout[self.side])

    @property
    def tags(self) -> dict[str, Any]:
        return dict(json.loads(self.batch.records.column("tags")[0].as_py() or "{}"))

    def fixed(self, name: str) -> Any:
        return self.batch.records.column(name)[0].as_py()

    def tensor(self, name: str) -> list[Any]:
        """Return one tensor in the shape that it had on the wire, from the stored columns."""
        item = next(item for item in self.layout["tensors"] if item["name"] == name)
        columns = [self.columns[column] for column in item["columns"]]
        if item["list"]:
            shape = item["shape"] if self.layout["whole"] else [len(columns[0]), *item["shape"]]
            flat = [leaf for row in columns[0] for leaf in row]
        else:
            rows = list(zip(*columns, strict=True))
            shape = [len(rows), *item["shape"]]
            flat = [leaf for row in rows for leaf in row]
        for size in reversed(shape[1:]):
            flat = [flat[start : start + size] for start in range(0, len(flat), size)]
        return flat


def spread(values: Any) -> list[list[Any]]:
    rows = []
    for row in values:
        flat = row if isinstance(row, list) else [row]
        while any(isinstance(item, list) for item in flat):
            flat = [leaf for item in flat for leaf in (item if isinstance(item, list) else [item])]
        rows.append(flat)
    return rows


def kind(read: Read, expected: str) -> None:
    found = kind_of(read.event.type)
    if expected in {"outlier", "drift"}:
        assert [reply["kind"] for reply in read.replies] == [expected]
    elif expected == "error":
        assert (found, read.fixed("protocol")) == ("response", "error")
        assert read.tags["error"]
    elif expected == "unknown":
        assert found == "other" or read.fixed("protocol") == "opaque"
    else:
        assert found == expected


def platform(read: Read, expected: str) -> None:
    assert read.event.type.startswith(PLATFORMS[expected])


def correlation_key(read: Read, expected: list[str]) -> None:
    # In the order of the parts, some of which not every platform has.
    namespace, name, endpoint, component, request_id = identity(read.event)
    assert expected[-1] == request_id
    assert set(expected) <= {namespace, name, endpoint, component, request_id}
    if len(expected) > 1:
        assert expected[:2] == [namespace, name]


def dedup_key(read: Read, expected: list[Any]) -> None:
    again = Read(read.sample, read.sample)
    assert expected
    assert again.duplicates == len(read.events)


def rows(read: Read, expected: int) -> None:
    if read.replies:
        assert read.replies[0]["rows"] == expected
    else:
        assert len(read.batch) == expected


def payload_protocol(read: Read, expected: str) -> None:
    assert read.fixed("protocol") == expected


def names_of_features(read: Read, expected: list[str] | None) -> None:
    wanted = expected or [f"f{n}" for n in range(len(read.columns))]
    assert read.batch.feature_names == wanted


def names_of_outputs(read: Read, expected: list[str]) -> None:
    tensors = [item["name"] for item in read.layout["tensors"]]
    assert expected in (read.batch.output_names, tensors)


def dtype(read: Read, expected: str) -> None:
    first = read.batch.records.column(-1).type
    datatype = read.layout["tensors"][0]["datatype"]
    assert str(first) == DTYPES.get(expected, expected)
    if expected in {"json", "bytes"}:
        assert datatype == {"json": "JSON", "bytes": "B64"}[expected]


def dtypes(read: Read, expected: dict[str, str]) -> None:
    for name, wanted in expected.items():
        assert str(read.batch.feature(name).type) == DTYPES.get(wanted, wanted)


def values(read: Read, expected: list[Any]) -> None:
    assert read.table == spread(expected)


def shape(read: Read, expected: list[int]) -> None:
    assert len(read.table) == expected[0]
    assert {len(row) for row in read.table} == {math.prod(expected[1:])}


def columns(read: Read, expected: dict[str, list[Any]]) -> None:
    for name, wanted in expected.items():
        assert read.columns[name] == wanted


def outputs(read: Read, expected: Any) -> None:
    if isinstance(expected, dict):
        for name, wanted in expected.items():
            assert read.answers.tensor(name) == wanted
    else:
        assert [row[0] for row in read.answers.table] == expected


def inputs(read: Read, expected: dict[str, Any]) -> None:
    for name, wanted in expected.items():
        if isinstance(wanted, dict):
            item = next(item for item in read.layout["tensors"] if item["name"] == name)
            assert item["datatype"] == wanted["datatype"]
            wanted = wanted["data"]  # noqa: PLW2901 - the two forms of the samples
        assert read.tensor(name) == wanted


def explanation(read: Read, expected: str) -> None:
    assert expected == "json.loads(outputs[0].data[0])"
    assert json.loads(read.batch.output("explanation")[0].as_py())["meta"]["name"] == "KernelShap"


def explainer(read: Read, expected: str) -> None:
    assert read.tags["undecoded"] == {"response": "explanation"}
    assert json.loads(read.batch.output("y")[0].as_py())["meta"]["name"] == expected


def duplicate_of(read: Read, expected: str) -> None:
    both = Read(SAMPLES[expected], read.sample)
    assert (both.duplicates, len(both.pairs)) == (1, 1)


def dead_letter(read: Read, expected: dict[str, Any]) -> None:
    assert read.tags["dead_letter"] == expected


def options(read: Read, expected: dict[str, str]) -> None:
    http = read.sample["http"]
    answer = answered(head(http["headers"], method="OPTIONS"), b"").lower()
    assert b"allow: " + expected["Allow"].lower().encode() in answer
    assert b"webhook-allowed-origin: eventemitter.example.com" in answer
    assert b"webhook-allowed-rate: *" in answer


def same_tag(name: str) -> Callable[[Read, Any], None]:
    def check(read: Read, expected: Any) -> None:
        assert read.tags[name] == expected

    return check


def counted(what: Callable[[Read], object]) -> Callable[[Read, Any], None]:
    def check(read: Read, expected: Any) -> None:
        assert what(read) == expected

    return check


def is_model(read: Read, expected: str) -> None:
    names = {identity(read.event).name, read.tags.get("model", "").partition("__isvc")[0]}
    assert expected in names


def missing(read: Read, expected: dict[str, list[int]]) -> None:
    for name, gaps in expected.items():
        found = [number for number, value in enumerate(read.columns[name]) if value is None]
        assert found == gaps


def tags(read: Read, expected: dict[str, Any]) -> None:
    assert expected.items() <= read.tags.items()


def empty(found: list[Any]) -> None:
    assert found == []


def timed(read: Read) -> None:
    assert read.event.time


def reader(read: Read, expected: str) -> None:
    """Accept what documents of Seldon's request logger are read as; drift is no traffic."""
    assert expected
    stored = read.sample["elasticsearch"]
    document = stored["doc"]
    row = int(stored["id"].rpartition("-item-")[2]) if "-item-" in stored["id"] else 0
    assert bool(read.events) == ("request" in document)
    if read.events:
        request, response = document["request"], document["response"]
        assert read.table[row if "payload" in request else 0] == request["instance"]
        assert read.answers.table[0] == response["instance"]
        assert read.batch.output_names == response["names"]
        assert read.fixed("request_id") == document["RequestId"]
        assert read.batch.deployment == "seldon/income"


def said(read: Read, expected: Any) -> None:
    """Accept what a sample says in words, or of others than the collector."""
    del read, expected


CHECKS: dict[str, Callable[[Read, Any], None]] = {
    "accepted": counted(lambda read: len(read.events)),
    "alt_ids": counted(lambda read: [read.tags["payload_id"]]),
    "annotations": same_tag("annotations"),
    "columns": columns,
    "columns_base64": columns,
    "correlation_key": correlation_key,
    "dead_letter": dead_letter,
    "dedup_key": dedup_key,
    "dtype": dtype,
    "dtypes": dtypes,
    "duplicate_of": duplicate_of,
    "error": counted(lambda read: "missing type" if read.rejected else ""),
    "explainer": explainer,
    "explanation": explanation,
    "feature_names": names_of_features,
    "inputs": inputs,
    "kind": kind,
    "metadata": same_tag("metadata"),
    "missing": missing,
    "model": is_model,
    "model_name": is_model,
    "must_not_crash": counted(lambda read: bool(read.events)),
    "namespace": counted(lambda read: identity(read.event).namespace),
    "non_finite": counted(lambda read: sum(row.count(None) for row in read.table)),
    "output_names": names_of_outputs,
    "outputs": outputs,
    "pairs": counted(lambda read: read.completed),
    "params": same_tag("params"),
    "payload_id": same_tag("payload_id"),
    "payload_protocol": payload_protocol,
    "pipeline": counted(lambda read: read.fixed("endpoint")),
    "platform": platform,
    "policy": lambda read, _: tags(read, {"id_missing": True}),
    "reader": reader,
    "records": counted(lambda read: len(read.events)),
    "rejected": counted(lambda read: read.rejected),
    "reply_event": lambda read, _: empty(read.events),
    "response_headers": options,
    "reward": counted(lambda read: read.labels[0]["labels"]["reward"]),
    "rows": rows,
    "rows_explained": rows,
    "shape": shape,
    "specversion": counted(lambda read: read.event.specversion),
    "synthetic": counted(lambda read: read.fixed("synthetic")),
    "tags": tags,
    "time": lambda read, _: timed(read),
    "trace_key": same_tag("x_request_id"),
    "truth": counted(lambda read: [[read.labels[0]["labels"]["y"]]]),
    "values": values,
    "values_base64": values,
    **dict.fromkeys(
        (
            "column_naming",
            "correlation",
            "direct_loggers",
            "json_length",
            "lenient_option",
            "matching_response_example",
            "must_not_change",
            "response",
            "retried_by",
            "retry_after_honoured",
            "strict",
            "type_pattern",
            "unframe",
            "unwrap",
        ),
        said,
    ),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_means_what_is_expected_of_it(name: str) -> None:
    sample = SAMPLES[name]
    read = Read(sample)
    for key, expected in sample["expect"].items():
        CHECKS[key](read, expected)


class Safe:
    """A journal whose disk is quick."""

    def append(self, stored_head: bytes, body: bytes, done: Done) -> None:
        del stored_head, body
        done(0, None)


def answered(request_head: bytes, body: bytes) -> bytes:
    method, target, _ = request_head.split(b"\r\n")[0].split(b" ")
    door = Door(Safe())
    room = door.admit(method, target, request_head)
    assert isinstance(room, int)
    answers: list[bytes] = []
    door.handle(Request(method, target, request_head, body), answers.append)
    assert len(answers) == 1
    return answers[0]


@pytest.mark.parametrize("name", [name for name in SAMPLES if "ack" in SAMPLES[name]])
def test_a_sender_is_answered_as_its_platform_needs(name: str) -> None:
    sample = SAMPLES[name]
    http = sample["http"]

    answer = answered(
        head(http["headers"], http["path"], http["method"]), content(http["body"]) or b""
    )

    status = int(answer.split(b" ")[1])
    assert status == sample["ack"]["status"]
    if status < 300:
        # Whatever else stands here, a broker of Knative takes for a failed delivery.
        assert answer.endswith(b"\r\n\r\n")


def test_a_door_without_room_says_when_to_come_again() -> None:
    door = Door(Safe(), DoorLimits())
    door.is_disk_low = True

    answer = door.admit(b"POST", b"/", b"")

    assert isinstance(answer, bytes)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: " in answer.lower()


PAIRED = [
    ("ks01_v1_request", "ks02_v1_response"),
    ("sc01_ndarray_request", "sc02_ndarray_response"),
    ("c201_model_inputs", "c202_model_outputs"),
    ("c201_model_inputs", "c205_error"),
]


@pytest.mark.parametrize("backwards", [False, True], ids=["in order", "answer first"])
@pytest.mark.parametrize("names", PAIRED, ids=lambda names: names[1])
def test_halves_meet_in_both_orders(names: tuple[str, str], backwards: bool) -> None:  # noqa: FBT001
    samples = [SAMPLES[name] for name in names]

    read = Read(*(reversed(samples) if backwards else samples))

    assert (read.completed, len(read.pairs)) == (1, 1)
    assert read.fixed("orphan") is None
    assert len(read.batch) == 2


def test_a_graph_that_logs_twice_is_one_inference() -> None:
    again = copy.deepcopy(SAMPLES["sc01_ndarray_request"])
    headers = dict(again["http"]["headers"]) | {"Ce-Id": "another"}
    again["http"]["headers"] = list(map(list, headers.items()))

    read = Read(SAMPLES["sc01_ndarray_request"], again, SAMPLES["sc02_ndarray_response"])

    assert (read.completed, read.duplicates, len(read.pairs)) == (1, 1, 1)


def test_samples_that_name_their_partner_are_all_tried() -> None:
    tagged: dict[str, list[str]] = {}
    for name, sample in SAMPLES.items():
        for tag in sample["tags"]:
            if tag.startswith("pair:"):
                tagged.setdefault(tag, []).append(name)

    assert {tuple(names) for names in tagged.values()} <= set(PAIRED)


def test_every_protocol_is_in_the_docs() -> None:
    text = (WIRE.parents[1] / "docs" / "dialects.md").read_text()
    found = {
        protocol
        for sample in SAMPLES.values()
        for batch in Read(sample).decoded.batches
        for protocol in batch.records.column("protocol").to_pylist()
    }

    assert len(found) > 10
    assert {protocol for protocol in found if f"`{protocol}`" not in text} == set()
