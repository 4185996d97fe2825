"""Members of a batch that were recognised give the events that thorough reading gives."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.logger import _envelope_json
from sidelight.logger._arrival import Arrival
from sidelight.logger._envelope_json import scan_batch
from sidelight.logger._envelope_member import EventLimits, Place, Rejected
from sidelight.logger._envelope_template_members import MemberTemplates
from sidelight.logger.errors import EnvelopeError
from sidelight.payloads import Event

PLACE = Place(partition=0, position=3, received_ns=5)
LIMITS = EventLimits()
REQUEST = "org.kubeflow.serving.inference.request"


class _Forgetful(MemberTemplates):
    def learn_member(self, *_: Any) -> None:
        """Learn nothing."""


@pytest.fixture(autouse=True)
def templates(monkeypatch: pytest.MonkeyPatch) -> MemberTemplates:
    fresh = MemberTemplates()
    monkeypatch.setattr(_envelope_json, "templates", fresh)
    return fresh


def _member(number: int, **rest: Any) -> dict[str, Any]:
    member = {
        "specversion": "1.0",
        "id": f"r{number}",
        "source": "/s",
        "type": REQUEST,
        "time": f"2026-01-01T00:00:0{number}Z",
        "inferenceservicename": "flights",
        "namespace": "prod",
        "latencyms": "1.5",
    }
    return {**member, **rest, "data": {"instances": [[number, 2.5]]}}


def _text(*members: Any, separators: tuple[str, str] = (",", ":")) -> bytes:
    return json.dumps(members, separators=separators).encode()


def _read(text: bytes) -> tuple[list[Event], list[Rejected]] | str:
    try:
        found, rejected = scan_batch(text, PLACE, LIMITS)
    except EnvelopeError as error:
        return str(error)
    return [item.event() if isinstance(item, Arrival) else item for item in found], rejected


def _thoroughly(text: bytes) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_envelope_json, "templates", _Forgetful())
        return _read(text)


def _arrivals(text: bytes) -> Sequence[object]:
    return [item for item in scan_batch(text, PLACE, LIMITS)[0] if isinstance(item, Arrival)]


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (",\n", ":"), (" ,", " :")])
def test_members_of_a_sender_that_is_known_are_recognised(separators: tuple[str, str]) -> None:
    _read(_text(_member(1), separators=separators))
    text = _text(_member(2), _member(3), _member(4), separators=separators)
    assert len(_arrivals(text)) == 3
    assert repr(_read(text)) == repr(_thoroughly(text))


def test_one_odd_member_leaves_the_others_recognised() -> None:
    _read(_text(_member(1)))
    text = _text(_member(2), {"id": "no event"}, _member(3, other="x"), _member(4, id='a"b'))
    assert len(_arrivals(text)) == 1
    assert repr(_read(text)) == repr(_thoroughly(text))


@pytest.mark.parametrize(
    "tail",
    [
        b',"namespace":"other"}]',
        b',"data":{"instances":[[9]]}}]',
        b',"data":null}]',
        b"} ]",
        b" }]",
        b"},]",
        b"}",
        b"}]]",
        b'},{"id":"x"}]',
        b"}\n,\n\n" + _text(_member(5))[1:],
        b"}, " + _text(_member(5))[1:],
    ],
)
def test_what_stands_behind_the_data_is_seen(tail: bytes) -> None:
    _read(_text(_member(1)))
    text = _text(_member(2), _member(3))[:-2] + tail
    assert repr(_read(text)) == repr(_thoroughly(text))


@pytest.mark.parametrize("name", ["id", "traceparent"])
def test_an_attribute_inside_of_another_value_is_none(name: str) -> None:
    for number in range(3):
        text = _text(_member(number, metadata={name: f"{number}"}))
        assert repr(_read(text)) == repr(_thoroughly(text))


def test_of_what_stands_twice_the_last_counts() -> None:
    _read(_text(_member(1)))
    # Where the second ends, if it stood in the place of the first, is a brace, too.
    twice = _text({**_member(2), "data": {"a": {}}})[:-2] + b',"namespace":"other","data":{"b":1}}]'
    assert repr(_read(twice)) == repr(_thoroughly(twice))


@pytest.mark.parametrize("name", ["type", "source"])
@pytest.mark.parametrize("value", [5, True, {"a": 1}, ["x"]])
def test_a_type_or_source_that_is_no_text_is_none(name: str, value: Any) -> None:
    events, rejected = scan_batch(_text(_member(1, **{name: value}), _member(2)), PLACE, LIMITS)

    assert (len(events), [bad.reason for bad in rejected]) == (1, [name])


def test_an_id_may_be_a_number() -> None:
    (event,), _ = scan_batch(_text(_member(1, id=17)), PLACE, LIMITS)

    assert isinstance(event, Event)
    assert event.id == "17"


def test_a_dead_letter_is_none_on_the_other_route() -> None:
    _read(_text(_member(1)))
    for dead_letter in (True, False):
        place = PLACE._replace(dead_letter=dead_letter)
        (found,), _ = scan_batch(_text(_member(2)), place, LIMITS)
        assert (found.event() if isinstance(found, Arrival) else found).dead_letter is dead_letter


_values = st.sampled_from(
    [None, "", "1", 1, 1.5, True, "é", "a\nb", "a%20", "}", [1], {"a": 1}, {"id": "7"}, "x" * 300]
)
_names = st.sampled_from(
    [
        *("id", "time", "type", "source", "requestid", "data", "data_base64", "metadata"),
        *("latencyms", "datacontenttype", "datacontentencoding", "traceparent"),
    ]
)
_changed = st.dictionaries(_names, _values, max_size=2)
_types = st.sampled_from([REQUEST, "io.seldon.serving.inference.response", "io.sidelight.feedback"])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(_types, _changed, st.booleans()), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    )
)
def test_whatever_was_seen_before_a_batch_is_the_same(
    batches: list[list[tuple[str, dict[str, Any], bool]]],
) -> None:
    for _ in range(2):
        for batch in batches:
            members: list[Any] = []
            for number, (kind, changed, is_last) in enumerate(batch):
                member = _member(number, type=kind) | changed
                if not is_last:
                    member = {"data": member.pop("data"), **member}
                members.append(member)
            text = _text(*members)
            assert repr(_read(text)) == repr(_thoroughly(text))


def test_few_short_texts_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: dict[bytes, str] = {}
    monkeypatch.setattr(_envelope_json, "_texts", texts)
    for number in range(10_000):
        _read(_text({"specversion": "1.0", "type": "t", "source": f"{number}", "id": "1"}))
    assert len(texts) <= 4096
    _read(_text({"specversion": "1.0", "type": "t", "source": "s" * 1000, "id": "1"}))
    assert max(map(len, texts)) <= 128
