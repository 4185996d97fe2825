import datetime as dt
import enum
import json
import math
import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import BaseModel

from sidelight.adapters.dialects import DIALECTS, read_payload
from sidelight.logger._tensor_json import OPTIONS, TensorWriter, rows_of
from sidelight.logger._tensor_values import Unexpressible

WRITER = TensorWriter()


def written(value: Any, writer: TensorWriter = WRITER) -> list[dict[str, Any]]:
    """Return tensors as they are on the wire."""
    found: list[dict[str, Any]] = json.loads(
        orjson.dumps(writer.tensors("x", value), option=OPTIONS)
    )
    return found


def one(value: Any) -> tuple[str, list[int], list[Any]]:
    (tensor,) = written(value)
    assert tensor["name"] == "x"
    return tensor["datatype"], tensor["shape"], tensor["data"]


def by_name(value: Any, writer: TensorWriter = WRITER) -> dict[str, tuple[str, list[Any]]]:
    return {
        tensor["name"]: (tensor["datatype"], tensor["data"]) for tensor in written(value, writer)
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, ("BOOL", [1], [True])),
        (3, ("INT64", [1], [3])),
        (2**64 - 1, ("UINT64", [1], [2**64 - 1])),
        (1.5, ("FP64", [1], [1.5])),
        (math.nan, ("FP64", [1], [None])),
        (-math.inf, ("FP64", [1], [None])),
        ("a", ("BYTES", [1], ["a"])),
        (None, ("FP64", [1], [None])),
        (np.float32(0.5), ("FP64", [1], [0.5])),
        (np.bool_(1), ("BOOL", [1], [True])),
        (np.str_("a"), ("BYTES", [1], ["a"])),
        (dt.date(2024, 2, 29), ("BYTES", [1], ["2024-02-29"])),
        (np.datetime64("2024-02-29"), ("BYTES", [1], ["2024-02-29"])),
        (np.datetime64("NaT", "s"), ("FP64", [1], [None])),
        (uuid.UUID(int=1), ("BYTES", [1], ["00000000-0000-0000-0000-000000000001"])),
        (enum.Enum("E", {"A": "a"}).A, ("BYTES", [1], ["a"])),  # type: ignore[attr-defined] # made at run time
        (enum.IntEnum("I", {"A": 7}).A, ("INT64", [1], [7])),  # type: ignore[attr-defined] # made at run time
        ([], ("FP64", [0], [])),
        ([1, 2], ("INT64", [2], [1, 2])),
        ([True, 2], ("INT64", [2], [True, 2])),
        ([1, 2.5], ("FP64", [2], [1, 2.5])),
        ([1, None], ("INT64", [2], [1, None])),
        ((1.0, math.nan), ("FP64", [2], [1.0, None])),
        (["a", None], ("BYTES", [2], ["a", None])),
        ([np.int8(1), np.int8(2)], ("INT64", [2], [1, 2])),
        ([[1, 2], [3, 4]], ("INT64", [2, 2], [1, 2, 3, 4])),
        ([(1, 2), [3, 4.5]], ("FP64", [2, 2], [1, 2, 3, 4.5])),
        ([[[1], [2]], [[3], [4]]], ("INT64", [2, 2, 1], [1, 2, 3, 4])),
        ([[], []], ("FP64", [2, 0], [])),
        ([np.array([1, 2]), np.array([3, 4])], ("INT64", [2, 2], [1, 2, 3, 4])),
        (np.array(5), ("INT64", [1], [5])),
        (np.array([[True], [False]]), ("BOOL", [2, 1], [True, False])),
        (np.array([1, 2], np.uint8), ("UINT8", [2], [1, 2])),
        (np.array([1, 2], ">i4"), ("INT32", [2], [1, 2])),
        (np.array([[1, 2], [3, 4]], order="F"), ("INT64", [2, 2], [1, 2, 3, 4])),
        (np.arange(6)[::2], ("INT64", [3], [0, 2, 4])),
        (np.array([0.5, np.nan], np.float16), ("FP16", [2], [0.5, None])),
        (np.array([0.5], np.longdouble), ("FP64", [1], [0.5])),
        (np.array(["a", "bc"]), ("BYTES", [2], ["a", "bc"])),
        (np.array(["a", None, "b"], object), ("BYTES", [3], ["a", None, "b"])),
        (
            np.array(["2024-01-01", "NaT"], "M8[D]"),
            ("BYTES", [2], ["2024-01-01", None]),
        ),
        (np.ma.array([1.5, 2.5], mask=[False, True]), ("FP64", [2], [1.5, None])),
    ],
    ids=repr,
)
def test_values_become_the_tensor_that_they_are(value: Any, expected: Any) -> None:
    assert one(value) == expected


def test_bytes_are_written_in_base64_and_say_so() -> None:
    (tensor,) = written([b"\x00\xff", None])

    assert tensor["data"] == ["AP8=", None]
    assert tensor["parameters"] == {"content_type": "base64"}


def test_a_frame_becomes_one_tensor_for_each_column() -> None:
    frame = pd.DataFrame(
        {
            "age": [30, 40],
            "income": [1.5, math.nan],
            "city": ["Bern", None],
            "paid": [True, False],
            "children": pd.array([1, None], dtype="Int64"),
            "kind": pd.Categorical(["a", "b"]),
            "when": pd.to_datetime(["2024-01-01", None]),
        }
    )

    columns = by_name(frame)

    assert columns["age"] == ("INT64", [30, 40])
    assert columns["income"] == ("FP64", [1.5, None])
    assert columns["city"] == ("BYTES", ["Bern", None])
    assert columns["paid"] == ("BOOL", [True, False])
    assert columns["children"] == ("INT64", [1, None])
    assert columns["kind"] == ("BYTES", ["a", "b"])
    assert columns["when"][0] == "BYTES"
    assert columns["when"][1][1] is None
    assert columns["when"][1][0].startswith("2024-01-01")
    assert {tuple(tensor["shape"]) for tensor in written(frame)} == {(2,)}


def test_columns_of_a_frame_may_have_any_labels() -> None:
    frame = pd.DataFrame([[1, 2, 3]], columns=pd.Index([0, "a", "a"]))

    assert [tensor["name"] for tensor in written(frame)] == ["0", "a", "a"]
    levels = pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")]))
    assert list(by_name(levels)) == ["a_b"]


def test_a_frame_of_another_library_is_known_by_what_it_can_do() -> None:
    class Column:
        def __init__(self, values: list[Any]) -> None:
            self.values = values

        def to_numpy(self) -> Any:
            return np.array(self.values)

    class Frame:
        columns = ("a", "b")
        dtypes = (float, str)

        def __getitem__(self, name: str) -> Column:
            return {"a": Column([1.5, 2]), "b": Column(["x", "y"])}[name]

    assert by_name(Frame()) == {"a": ("FP64", [1.5, 2]), "b": ("BYTES", ["x", "y"])}


def test_a_series_keeps_its_name() -> None:
    assert by_name(pd.Series([1, 2], name="age")) == {"age": ("INT64", [1, 2])}
    assert by_name(pd.Series([1, 2])) == {"x": ("INT64", [1, 2])}


def test_tensors_of_other_libraries_are_read_as_arrays() -> None:
    class Tensor:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.array([[1.5, 2]], np.float32)

    assert one(Tensor()) == ("FP32", [1, 2], [1.5, 2])


def test_a_dict_of_columns_and_one_of_values_are_tables() -> None:
    assert by_name({"a": [1, 2], "b": np.array([0.5, 1])}) == {
        "a": ("INT64", [1, 2]),
        "b": ("FP64", [0.5, 1]),
    }
    assert by_name({"age": 3, "city": "Bern", 7: None}) == {
        "age": ("INT64", [3]),
        "city": ("BYTES", ["Bern"]),
        "7": ("FP64", [None]),
    }


def test_records_become_columns_and_what_one_lacks_is_null() -> None:
    assert by_name([{"a": 1, "b": "x"}, {"a": 2, "c": np.float64(0.5)}]) == {
        "a": ("INT64", [1, 2]),
        "b": ("BYTES", ["x", None]),
        "c": ("FP64", [None, 0.5]),
    }


def test_objects_with_fields_are_records() -> None:
    @dataclass
    class Applicant:
        age: int
        city: str

    class Model(BaseModel):
        age: int
        city: str

    expected = {"age": ("INT64", [3]), "city": ("BYTES", ["Bern"])}
    assert by_name(Applicant(3, "Bern")) == expected
    assert by_name(Model(age=3, city="Bern")) == expected
    assert by_name([Applicant(3, "Bern")]) == expected


def test_rows_of_different_kinds_become_columns() -> None:
    assert by_name([[1, "a"], [2, "b"]]) == {"x_0": ("INT64", [1, 2]), "x_1": ("BYTES", ["a", "b"])}


@pytest.mark.parametrize("rows", [np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]], ids=["np", "list"])
def test_named_columns_of_a_matrix_become_tensors(rows: Any) -> None:
    assert by_name(rows, TensorWriter(column_names=["age", "income"])) == {
        "age": ("INT64", [1, 3]),
        "income": ("INT64", [2, 4]),
    }


@pytest.mark.parametrize("row", [np.array([1, 2]), [1, 2], (1, 2)], ids=["np", "list", "tuple"])
def test_as_many_values_as_names_are_one_row(row: Any) -> None:
    writer = TensorWriter(column_names=["age", "income"])

    assert by_name(row, writer) == {"age": ("INT64", [1]), "income": ("INT64", [2])}
    assert list(by_name([1, 2, 3], writer)) == ["x"]


@pytest.mark.parametrize(
    "value",
    [
        object(),
        [object()],
        [1, "a"],
        [True, 0.5],
        [[1], [2, 3]],
        [[1], 2],
        {},
        [{}],
        {"a": {"b": 1}},
        [{"a": [1]}],
        2**64,
        -(2**63) - 1,
        [b"a", "b"],
        np.array([1j]),
        np.array([(1, 2)], dtype=[("a", int), ("b", int)]),
        np.array([np.timedelta64(1, "s")]),
        [np.array([1]), np.array([1, 2])],
        pd.DataFrame(),
        iter([1]),
    ],
    ids=repr,
)
def test_what_is_no_tensor_is_said_to_be_unsupported(value: Any) -> None:
    with pytest.raises(Unexpressible) as caught:
        WRITER.tensors("x", value)

    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(51),
        [0] * 51,
        [[0] * 10] * 6,
        [{"a": 1, "b": 2}] * 26,
        dict.fromkeys(map(str, range(5000)), 1),
        pd.DataFrame([[0] * 5000]),
    ],
    ids=["array", "list", "matrix", "records", "dict", "frame"],
)
def test_what_is_certainly_too_long_is_not_written(value: Any) -> None:
    with pytest.raises(Unexpressible) as caught:
        TensorWriter(max_bytes=100).tensors("x", value)

    assert caught.value.reason == "too_large"


def test_a_value_that_contains_itself_ends() -> None:
    loop: list[Any] = []
    loop.append(loop)

    with pytest.raises(Unexpressible):
        WRITER.tensors("x", loop)


def test_rows_are_counted_by_the_dimension_that_all_share() -> None:
    assert rows_of(WRITER.tensors("x", [[1, 2], [3, 4], [5, 6]])) == 3
    assert rows_of([]) == 1
    assert rows_of([{"shape": [2]}, {"shape": [3]}]) == 1


# --- read again by the decoder ---

_DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
)
_TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
_COLUMNS = st.sampled_from(
    [
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(width=64),
        st.one_of(st.none(), st.floats(width=64)),
        _TEXT,
        st.one_of(st.none(), _TEXT),
    ]
)


def decoded(value: Any) -> tuple[int, dict[str, tuple[str, list[Any]]]]:
    body = orjson.dumps({"inputs": WRITER.tensors("x", value)}, option=OPTIONS)
    half = read_payload(body, "request", DIALECTS)
    assert half.reason is None, body
    return half.rows, {
        str(tensor.name): (tensor.datatype, values)
        for tensor, values in zip(half.layout.tensors, half.values, strict=True)
    }


def same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and not math.isfinite(left):
        return right is None
    return bool(left == right) and (left is None or isinstance(right, type(left) | int))


@given(
    hnp.arrays(_DTYPES, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6)),
    st.sampled_from("CF"),
)
def test_arrays_are_read_as_they_were(array: Any, order: str) -> None:
    array = array.T if order == "F" else array
    rows, tensors = decoded(array)

    ((datatype, values),) = tensors.values()
    assert rows == len(array)
    size = 8 * array.dtype.itemsize
    kinds = {"b": "BOOL", "i": f"INT{size}", "u": f"UINT{size}", "f": f"FP{size}"}
    assert datatype == kinds[array.dtype.kind]
    flat = array.ravel().tolist()
    assert len(values) == len(flat)
    if array.dtype.kind == "f":
        # The shortest text that gives the same number in its own precision.
        back = np.array([math.nan if one is None else one for one in values], array.dtype)
        finite = np.where(np.isfinite(array.ravel()), array.ravel(), np.nan)
        np.testing.assert_array_equal(back, finite.astype(back.dtype))
    else:
        assert values == flat


@given(
    st.data(),
    st.integers(1, 5),
    st.dictionaries(_TEXT.filter(bool), _COLUMNS, min_size=1, max_size=4),
)
def test_tables_are_read_as_they_were(data: Any, n_rows: int, kinds: dict[str, Any]) -> None:
    table = {
        name: data.draw(st.lists(kind, min_size=n_rows, max_size=n_rows))
        for name, kind in kinds.items()
    }
    records = [{name: column[row] for name, column in table.items()} for row in range(n_rows)]

    for value in (table, records):
        rows, tensors = decoded(value)
        assert rows == n_rows
        assert list(tensors) == list(table)
        for name, column in table.items():
            assert all(map(same, column, tensors[name][1])), (column, tensors[name])


@given(
    st.recursive(
        st.one_of(
            st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.dates()
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(st.one_of(st.text(), st.integers()), inner, max_size=4),
        ),
        max_leaves=12,
    )
)
def test_whatever_is_given_is_written_or_said_to_be_impossible(value: Any) -> None:
    try:
        tensors = WRITER.tensors("x", value)
        body = orjson.dumps({"inputs": tensors}, option=OPTIONS)
    except (Unexpressible, TypeError):
        return

    assert read_payload(body, "request", DIALECTS).reason is None
