"""Batches that are taken apart at once, and member by member, hold the same events."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.logger import _envelope_json
from sidelight.logger._envelope_json import parse_batch
from sidelight.logger._envelope_member import EventLimits, Place

PLACE = Place(partition=0, position=3, received_ns=5)
_values = st.sampled_from(
    [None, "", "1", 1, 1.5, True, "é", "a\nb", [1], {"a": 1}, "application/json", "x" * 200]
)
_members = st.dictionaries(
    st.sampled_from(["id", "time", "type", "source", "specversion", "data", "name", "other"]),
    _values,
)


@settings(deadline=None)
@given(members=st.lists(_members | st.integers(), max_size=5), tail=st.sampled_from(["", ",NaN"]))
def test_a_long_batch_is_read_like_a_short_one(members: list[Any], tail: str) -> None:
    whole = {"specversion": "1.0", "type": "t", "source": "s", "id": "1", "name": 1}
    inner = json.dumps([whole, *members])[1:-1] + tail
    text = f"[{inner}]".encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_envelope_json, "_AT_ONCE_BYTES", 0)
        patch.setattr(_envelope_json, "_texts", {})
        one_by_one = parse_batch(text, PLACE, EventLimits())
    assert repr(parse_batch(text, PLACE, EventLimits())) == repr(one_by_one)
    assert one_by_one[0][0].extensions == {"name": "1"}


def test_few_short_texts_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: dict[bytes, str] = {}
    monkeypatch.setattr(_envelope_json, "_texts", texts)
    for number in range(10_000):
        member = {"specversion": "1.0", "type": "t", "source": f"{number}", "id": "1"}
        parse_batch(json.dumps([member]).encode(), PLACE, EventLimits())
    assert len(texts) <= 4096
    parse_batch(json.dumps([member | {"source": "s" * 1000}]).encode(), PLACE, EventLimits())
    assert max(map(len, texts)) <= 128
