"""Numbers of long arrays are what orjson and Arrow make of them, whoever reads them."""

import importlib.util
import struct
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.adapters._decoding_columns import CONVERSION_ERRORS, REAL_DATATYPES, arrays
from sidelight.adapters._known_numbers import Numbers
from sidelight.adapters.dialects import Tensor

# With the extra ``simd`` where it is.
WITH = [False, True] if importlib.util.find_spec("simdjson") else [False]
ODD = (
    *("NaN", "Infinity", "1e400", "-1e400", "null", "true", "false", '"1"', "[1]", "[1,[2]]", "{}"),
    *("01", "1.", ".5", "+1", "-0", "-0.0", "1,,2", "1,2", "", " 1 ", "],[", "]", "[", '"', "1_0"),
    *("9007199254740993", "18446744073709551615", "18446744073709551616", "-9223372036854775809"),
    *("1E5", "5e-324", "1e-400", "0.1e-5", '{"a":1}', "\t2\n", "2\x0b", "\ufeff", "1]", "0x1"),
    *("123456789012345678901234567890", "2.2250738585072011e-308", "16777217", "1e39"),
)
_tokens = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**63), 2**64 - 1).map(str),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
)
_texts = st.lists(_tokens | st.sampled_from(ODD), min_size=1, max_size=12).map(",".join)


@pytest.fixture(params=WITH, ids=["with" if extra else "without" for extra in WITH])
def numbers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Numbers:
    if not request.param:
        monkeypatch.setitem(sys.modules, "simdjson", None)
    return Numbers()


def _read_one_by_one(inside: str) -> list[float] | None:
    """Return what orjson reads, as doubles."""
    try:
        values = orjson.loads(f"[{inside}]".encode())
    except orjson.JSONDecodeError:
        return None
    are_real = bool(values) and all(isinstance(value, float | int) for value in values)
    return list(map(float, values)) if are_real else None


def _bits(values: Any) -> bytes:
    return struct.pack(f"{len(values)}d", *values)


def _assert_same(numbers: Numbers, inside: str) -> None:
    found, expected = numbers.read(inside.encode()), _read_one_by_one(inside)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert _bits(found) == _bits(expected)


@pytest.mark.parametrize("text", ODD)
def test_what_is_odd_is_read_as_one_by_one(text: str, numbers: Numbers) -> None:
    for inside in (text, f"0.5,{text}", f"{text},0.5", f"1,{text},2.5", f"{text},{text}"):
        _assert_same(numbers, inside)


@settings(deadline=None)
@given(st.lists(_texts, min_size=1, max_size=4))
def test_any_texts_are_read_as_one_by_one(texts: list[str]) -> None:
    numbers = Numbers()
    for inside in texts:
        _assert_same(numbers, inside)


@settings(deadline=None)
@given(st.lists(_texts, min_size=1, max_size=4))
def test_any_texts_are_read_as_one_by_one_without_the_extra(texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "simdjson", None)
        numbers = Numbers()
    for inside in texts:
        _assert_same(numbers, inside)


def test_what_was_read_stays_when_the_next_is_read(numbers: Numbers) -> None:
    first = numbers.read(b"1.5,2.5")
    second = numbers.read(b"3.5,4.5")

    assert first is not None
    assert second is not None
    assert [*first, *second] == [1.5, 2.5, 3.5, 4.5]


def test_what_the_quick_parser_refuses_is_read_by_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bytes] = []

    def parse(text: bytes) -> Any:
        asked.append(text)
        raise RuntimeError("NUMBER_ERROR")

    module = SimpleNamespace(Parser=lambda: SimpleNamespace(parse=parse))
    monkeypatch.setitem(sys.modules, "simdjson", module)
    numbers = Numbers()

    found = numbers.read(b"18446744073709551616,1")

    assert asked == [b"[18446744073709551616,1]"]
    assert found is not None
    assert found.tolist() == [2.0**64, 1.0]
    # It would flatten it: not even asked.
    assert numbers.read(b"1,[2,3]") is None
    assert len(asked) == 1


_values = st.one_of(
    st.floats(width=64),
    st.integers(-(2**63), 2**64 - 1),
    st.booleans(),
    st.none(),
    st.just("1"),
    st.sampled_from([1e39, -1e39, 2**24 + 1, 2**53 + 1, 5e-324, -0.0]),
)


# Arrow loads pandas with the first list, where that is installed.
@settings(deadline=None)
@given(
    st.sampled_from(sorted(REAL_DATATYPES)),
    st.integers(1, 3),
    st.lists(st.tuples(st.booleans(), st.lists(_values, max_size=4)), min_size=1, max_size=4),
)
def test_arrays_and_lists_become_the_columns_of_lists(
    datatype: str, n: int, parts: list[tuple[bool, list[Any]]]
) -> None:
    tensor = Tensor(name="x", datatype=datatype, shape=(n,), n_columns=n)
    # Whole rows.
    lists = [values * n for _, values in parts]
    given_parts: list[Any] = [
        np.array(values, dtype=np.float64)
        if is_array and values and all(isinstance(value, int | float) for value in values)
        else values
        for (is_array, _), values in zip(parts, lists, strict=True)
    ]

    assert _columns(tensor, given_parts) == _columns(tensor, lists)


def _columns(tensor: Tensor, parts: list[Any]) -> list[tuple[pa.DataType, list[Any]]] | None:
    """Return types and values to the bit; None where they cannot be had."""
    try:
        found = arrays(tensor, parts)
    except CONVERSION_ERRORS:
        return None
    return [(column.type, list(map(repr, column.to_pylist()))) for column in found]
