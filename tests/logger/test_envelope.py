"""CloudEvents from stored requests: binary, structured, batched, damaged."""

import base64
import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.logger import EventLimits, Rejected, feedback, identity, kind_of, parse
from sidelight.logger._journal import EventRecord
from sidelight.payloads import Event, RawRef

WIRE = Path(__file__).parents[1] / "wire"
KSERVE = "org.kubeflow.serving.inference.request"
KNOWN = {"ce-specversion": "1.0", "ce-type": KSERVE, "ce-source": "/s", "ce-id": "1"}
OTHER = {**KNOWN, "ce-type": "com.example.thing"}
MEMBER = {"specversion": "1.0", "type": KSERVE, "source": "/s", "id": "1"}
STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


def record(headers: dict[str, str], body: bytes = b"", path: str = "/") -> EventRecord:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode()
    return EventRecord(0, 17, 123, head, body)


def sample(name: str) -> tuple[EventRecord, dict[str, Any]]:
    value = json.loads(next(WIRE.glob(f"{name}_*.json")).read_text())
    http = value["http"]
    body = http["body"]
    data = body["text"].encode() if "text" in body else base64.b64decode(body["base64"])
    return record(dict(http["headers"]), data, http["path"]), value["expect"]


def one(stored: EventRecord) -> Event:
    events, rejected = parse(stored)
    assert rejected == []
    assert len(events) == 1
    return events[0]


def refused(stored: EventRecord) -> Rejected:
    events, rejected = parse(stored)
    assert events == []
    assert len(rejected) == 1
    return rejected[0]


def structured(**changes: Any) -> EventRecord:
    return record({"Content-Type": STRUCTURED}, json.dumps({**MEMBER, **changes}).encode())


@pytest.mark.parametrize(
    "name",
    ["ks01", "ks02", "ks03", "ks13", "sc01", "sc02", "sc10", "ce01", "ce14"],
)
def test_golden_samples_have_their_correlation_key(name: str) -> None:
    stored, expect = sample(name)

    event = one(stored)

    key = [part for part in identity(event) if part]
    assert sorted(key) == sorted(expect.get("correlation_key", key))
    assert kind_of(event.type) == expect["kind"]


def test_dead_letters_are_marked_by_their_route() -> None:
    assert one(record(KNOWN, path="/dead-letter?x=1")).dead_letter
    assert not one(record(KNOWN, path="/events")).dead_letter


def test_the_place_of_an_event_is_kept() -> None:
    event = one(record(KNOWN))

    assert event.ref == RawRef(partition=0, position=17, index=0)
    assert event.received_ns == 123


def test_metadata_is_left_as_sent() -> None:
    stored, _ = sample("ks04")

    assert json.loads(one(stored).extensions["metadata"])["X-Discount"] == ["100% off"]


def test_ids_of_known_types_are_taken_verbatim() -> None:
    event = one(record({**KNOWN, "ce-id": "a%20b é"}))

    assert event.id == "a%20b é"


def test_other_values_are_percent_decoded_and_unquoted() -> None:
    event = one(record({**OTHER, "ce-id": "a%20b", "ce-word": '"say \\"%C3%A9\\""'}))

    assert (event.id, event.extensions["word"]) == ("a b", 'say "é"')


def test_percent_sequences_that_are_no_text_are_refused_for_unknown_types() -> None:
    assert refused(record({**OTHER, "ce-word": "%ff"})).reason == "ce-word"
    assert one(record({**KNOWN, "ce-word": "%ff"})).extensions["word"] == "%ff"


def test_header_bytes_that_are_no_utf8_are_kept_as_latin_1() -> None:
    stored = record(KNOWN)
    head = stored.head.replace(b"ce-id: 1", b"ce-id: \xff")

    assert one(EventRecord(0, 1, 1, head, b"")).id == "ÿ"


def test_complete_attributes_of_a_known_type_win_over_a_structured_content_type() -> None:
    event = one(record({**KNOWN, "Content-Type": STRUCTURED}, b'{"instances": []}'))

    assert (event.id, event.data) == ("1", b'{"instances": []}')


def test_attributes_of_other_types_lose_against_a_structured_body() -> None:
    stored = record({**OTHER, "Content-Type": STRUCTURED}, json.dumps(MEMBER).encode())

    assert one(stored).type == KSERVE


def test_a_missing_id_of_a_known_type_is_made_from_the_place() -> None:
    event = one(sample("ce08")[0])

    assert event.id_missing
    assert event.id == "missing-0-17-0"


def test_of_two_headers_with_one_name_the_first_counts() -> None:
    stored = record(KNOWN)
    for first, second in (("1", "2"), ("2", "1")):
        lines = f"ce-endpoint: {first}\r\nCE-Endpoint: {second}\r\n\r\n".encode()
        head = stored.head[:-2] + lines

        assert one(EventRecord(0, 0, 0, head, b"")).extensions["endpoint"] == first


def test_a_missing_time_is_allowed() -> None:
    assert one(record(KNOWN)).time is None


@pytest.mark.parametrize("name", ["specversion", "type", "source"])
def test_a_missing_attribute_is_named(name: str) -> None:
    headers = {key: value for key, value in KNOWN.items() if key != f"ce-{name}"}

    found = refused(record(headers))

    assert (found.reason, found.got) == (name, "none")


def test_a_request_that_is_no_event_is_refused() -> None:
    assert refused(record({"Content-Type": "text/csv"}, b"1,2")).got == "content-type text/csv"


def test_other_event_formats_are_refused() -> None:
    found = refused(record({"Content-Type": "application/cloudevents+avro"}))

    assert found.expected == "a JSON event format"


def test_structured_data_keeps_its_bytes() -> None:
    body = json.dumps(MEMBER).encode()[:-1] + b', "data": { "x" : 1.0e2,"n":NaN } }'

    assert one(record({"Content-Type": STRUCTURED}, body)).data == b'{ "x" : 1.0e2,"n":NaN }'


def test_a_json_string_stays_one() -> None:
    assert one(sample("ce03")[0]).data == b'"{\\"instances\\":[[1]]}"'


def test_text_of_another_content_type_is_the_data() -> None:
    event = one(structured(data='a "b"', datacontenttype="text/plain"))

    assert event.data == b'a "b"'


def test_base64_is_decoded_in_both_versions() -> None:
    assert one(sample("ce02")[0]).data == b'{"instances":[[1,2]]}'
    assert one(sample("ce10")[0]).data == b'{"instances":[[9]]}'
    assert "datacontentencoding" not in one(sample("ce10")[0]).extensions


def test_bad_base64_is_refused() -> None:
    assert refused(structured(data_base64="%%%")).reason == "data_base64"
    assert refused(structured(data_base64="AA==", data=1)).got == "both"


def test_null_is_no_attribute_and_other_values_are_their_json() -> None:
    event = one(structured(subject=None, sequence=7, flag=True, metadata={"a": ["b"]}))

    assert event.extensions == {"sequence": "7", "flag": "true", "metadata": '{"a": ["b"]}'}


def test_lone_surrogates_are_replaced() -> None:
    event = one(structured(inferenceservicename="\ud800x"))

    event.extensions["inferenceservicename"].encode()


def test_bad_members_of_a_batch_do_not_touch_the_others() -> None:
    stored, expect = sample("ce04")

    events, rejected = parse(stored)

    assert len(events) == expect["accepted"]
    assert [(item.index, item.reason) for item in rejected] == [(2, "type")]
    assert [event.ref.index for event in events] == [0, 1]


def test_an_empty_batch_is_valid() -> None:
    assert parse(sample("ce05")[0]) == ([], [])


def test_members_that_strict_parsers_refuse_do_not_touch_the_others() -> None:
    good = json.dumps({**MEMBER, "data": [1]}).encode()
    odd = [
        good[:-1].replace(b"[1]", b"[NaN, -Infinity]") + b"}",
        good.replace(b"[1]", b"[" * 10_000 + b"]" * 10_000),
        b"17",
        b'{"id" 1}',
    ]
    body = b"[" + b", ".join([good, *odd, good]) + b"]"

    events, rejected = parse(record({"Content-Type": BATCH}, body))

    assert [event.ref.index for event in events] == [0, 1, 2, 5]
    assert events[1].data == b"[NaN, -Infinity]"
    assert [item.index for item in rejected] == [3, 4]


@pytest.mark.parametrize("body", [b"", b"{}", b"[", b'["', b"[1", b"[1}", b"null", b"\xff"])
def test_bodies_that_are_no_batch_are_refused(body: bytes) -> None:
    assert len(parse(record({"Content-Type": BATCH}, body))[1]) == 1


@pytest.mark.parametrize("coding", ["gzip", "deflate", "bare"])
def test_content_encoding_is_undone(coding: str) -> None:
    body = json.dumps({**MEMBER, "data": [1, 2]}).encode()
    compressed = {
        "gzip": gzip.compress(body),
        "deflate": zlib.compress(body),
        "bare": zlib.compress(body)[2:-4],
    }[coding]
    headers = {"Content-Type": STRUCTURED, "Content-Encoding": coding.replace("bare", "deflate")}

    assert one(record(headers, compressed)).data == b"[1, 2]"


def test_a_bomb_is_refused_in_the_envelope_and_kept_as_it_came_in_a_payload() -> None:
    bomb = gzip.compress(bytes(1 << 20))
    limits = EventLimits(max_inflated_bytes=1000)
    headers = {"Content-Encoding": "gzip"}

    _, rejected = parse(record({**headers, "Content-Type": STRUCTURED}, bomb), limits)
    events, _ = parse(record({**headers, **KNOWN}, bomb), limits)

    assert rejected[0].expected == "at most 1000 bytes inflated"
    assert events[0].data == bomb


def test_a_truncated_payload_is_kept_as_it_came() -> None:
    cut = gzip.compress(b"[1, 2, 3]")[:-6]

    assert one(record({**KNOWN, "Content-Encoding": "gzip"}, cut)).data == cut


def test_attributes_have_a_bound() -> None:
    found = refused(structured(subject="x" * 70_000))

    assert (found.reason, found.got) == ("subject", "70000")


def test_names_with_slashes_and_control_characters_stay_one_segment() -> None:
    headers = {**KNOWN, "ce-namespace": "a/b", "ce-inferenceservicename": "m%0A%00"}

    assert identity(one(record(headers))).deployment == "a%2Fb/m%0A%00"


heads = st.lists(
    st.tuples(
        st.sampled_from(
            ["ce-id", "Ce-Type", "ce-source", "ce-specversion", "Content-Type", "content-encoding"]
        )
        | st.text(max_size=8),
        st.sampled_from([KSERVE, STRUCTURED, BATCH, "gzip", "deflate", "1.0", '"', "%", "%ff"])
        | st.text(max_size=8),
    ),
    max_size=8,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*MEMBER, "data", "data_base64", "x"]), inner, max_size=6)
    ),
    max_leaves=12,
)


@given(heads, st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=400, deadline=None)
def test_no_bytes_make_the_parser_raise(headers: list[tuple[str, str]], body: bytes) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    head = f"POST / HTTP/1.1\r\n{lines}\r\n".encode("utf-8", "surrogatepass")

    events, rejected = parse(EventRecord(0, 0, 0, head, body))

    assert all(event.type and event.source and event.id for event in events)
    assert all(item.expected and item.got for item in rejected)


@given(st.binary(max_size=200), st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_raw_bytes_make_the_parser_raise(head: bytes, body: bytes) -> None:
    parse(EventRecord(0, 0, 0, head, body))


@given(st.lists(json_values, max_size=4))
@settings(deadline=None)
def test_every_member_of_a_batch_is_an_event_or_rejected(members: list[Any]) -> None:
    body = json.dumps(members).encode()

    events, rejected = parse(record({"Content-Type": BATCH}, body))

    places = [event.ref.index for event in events] + [item.index for item in rejected]
    assert sorted(places) == list(range(len(members)))


def label_event(data: bytes, **extensions: str) -> Event:
    return Event(
        id="1", source="/s", type="io.sidelight.feedback", data=data, extensions=extensions
    )


def test_feedback_takes_what_items_leave_out_from_the_event() -> None:
    data = b'[{"labels": {"late": 1}}, {"labels": {"late": 0}, "row": 2, "request_id": "r2"}]'
    event = label_event(data, requestid="r1", namespace="prod", inferenceservicename="m")

    labels, rejected = feedback(event)

    assert rejected == []
    assert [(item["deployment"], item["request_id"], item["row"]) for item in labels] == [
        ("prod/m", "r1", 0),
        ("prod/m", "r2", 2),
    ]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "data"),
        (b"[1]", "label"),
        (b'{"labels": {"y": 1}}', "request_id"),
        (b'{"request_id": "1", "labels": []}', "labels"),
        (b'{"request_id": "1", "labels": {"y": 1}, "row": -1}', "row"),
        (b'{"request_id": "1", "labels": {"y": 1}, "row": 2147483648}', "row"),
        (b'{"request_id": "1", "labels": {"y": 1}, "deployment": 1}', "deployment"),
    ],
)
def test_feedback_that_cannot_be_read_says_why(data: bytes, reason: str) -> None:
    labels, rejected = feedback(label_event(data))

    assert labels == []
    assert [item.reason for item in rejected] == [reason]


RECORD = {
    "id": "mm-1",
    "kind": "request",
    "modelid": "fraud__isvc-abc",
    "metadata": {"k": "v"},
    "data": base64.b64encode(b"\x0a\x05fraud").decode(),
}


def payload_record(**changes: Any) -> EventRecord:
    body = json.dumps({**RECORD, **changes}).encode()
    return record({"Content-Type": "application/json"}, body, "/consumer/kserve/v2?x")


def test_both_records_of_modelmesh_are_halves_of_one_inference() -> None:
    request, response = one(payload_record()), one(payload_record(kind="response", data=None))

    assert (kind_of(request.type), kind_of(response.type)) == ("request", "response")
    assert identity(request) == identity(response)
    assert (identity(request).deployment, identity(request).request_id) == ("default/fraud", "mm-1")
    assert (request.data, response.data) == (b"\x0a\x05fraud", b"")
    assert json.loads(request.extensions["metadata"]) == {"k": "v"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id": ""}, "id"),
        ({"id": 7}, "id"),
        ({"kind": "other"}, "kind"),
        ({"modelid": None}, "modelid"),
        ({"data": "?"}, "data"),
        ({"data": {}}, "data"),
    ],
)
def test_records_that_contradict_themselves_are_rejected(
    changes: dict[str, Any], reason: str
) -> None:
    assert refused(payload_record(**changes)).reason == reason


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000])
def test_what_is_no_record_is_rejected(body: bytes) -> None:
    assert refused(record({}, body, "/consumer/kserve/v2")).reason == "body"
