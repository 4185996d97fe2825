"""MLflow's data frames, and what its server answers."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.adapters.dialects import DIALECTS, Half, Side, read_payload

cells = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=3)
columns_of = st.lists(st.text(max_size=3), min_size=1, max_size=4, unique=True)


def read(body: dict[str, Any], side: Side = "request") -> Half:
    return read_payload(json.dumps(body).encode(), side, DIALECTS)


def by_name(half: Half) -> dict[str | None, list[Any]]:
    names = [tensor.name for tensor in half.layout.tensors]
    return dict(zip(names, half.values, strict=True))


@given(columns_of, st.integers(1, 4), st.data())
@settings(deadline=None)
def test_split_and_records_of_one_frame_read_the_same(
    names: list[str], rows: int, data: st.DataObject
) -> None:
    row = st.lists(cells, min_size=len(names), max_size=len(names))
    table = data.draw(st.lists(row, min_size=rows, max_size=rows))
    split = read({"dataframe_split": {"columns": names, "data": table, "index": list(range(rows))}})
    records = read({"dataframe_records": [dict(zip(names, line, strict=True)) for line in table]})

    assert (split.layout.protocol, records.layout.protocol) == ("mlflow-split", "mlflow-records")
    assert by_name(split) == by_name(records)
    for place, name in enumerate(names):
        tensor = split.layout.tensors[place]
        if tensor.datatype != "JSON":
            assert by_name(split)[name] == [line[place] for line in table]


def test_a_frame_without_names_has_none() -> None:
    half = read({"dataframe_split": {"data": [[1, 2], [3, 4]]}})

    assert (half.rows, by_name(half)) == (2, {None: [1, 2, 3, 4]})


def test_names_on_several_levels_are_joined() -> None:
    half = read({"dataframe_split": {"columns": [["a", 1], 2], "data": [[5, 6]]}})

    assert by_name(half) == {"a_1": [5], "2": [6]}


def test_a_frame_without_rows_keeps_its_columns() -> None:
    half = read({"dataframe_split": {"columns": ["a", "b"], "data": []}})

    assert (half.rows, half.facts, by_name(half)) == (
        1,
        {"empty": True},
        {"a": [None], "b": [None]},
    )


def test_parameters_are_kept_beside() -> None:
    half = read({"dataframe_records": [{"a": 1}], "params": {"threshold": 0.4}})

    assert half.facts == {"params": {"threshold": 0.4}}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"dataframe_split": []}, "shape"),
        ({"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}, "shape"),
        ({"dataframe_split": {"columns": ["a"], "data": [1]}}, "shape"),
        ({"dataframe_split": {"columns": "a", "data": [[1]]}}, "shape"),
        ({"dataframe_split": {"columns": list(range(5000)), "data": []}}, "columns"),
        ({"dataframe_records": {"a": 1}}, "shape"),
        ({"dataframe_records": [1]}, "shape"),
    ],
)
def test_contradictions_come_back_opaque(body: dict[str, Any], reason: str) -> None:
    half = read(body)

    assert (half.layout.protocol, half.reason) == ("opaque", reason)


def test_few_values_do_not_make_a_large_table() -> None:
    wide = {str(number): 1 for number in range(4000)}

    half = read({"dataframe_records": [wide, *[{}] * 10_000]})

    assert half.reason == "sparse"


@pytest.mark.parametrize(
    ("predictions", "expected"),
    [
        ([{"label": "a", "p": 0.9}], {"label": ["a"], "p": [0.9]}),
        ({"a": [1, 2], "b": [3, 4]}, {"a": [1, 2], "b": [3, 4]}),
        ("text", {None: ["text"]}),
        (0.5, {None: [0.5]}),
        ([[0.1, 0.9]], {None: [0.1, 0.9]}),
    ],
)
def test_answers_are_read_whatever_the_model_returns(
    predictions: Any, expected: dict[str | None, list[Any]]
) -> None:
    assert by_name(read({"predictions": predictions}, "response")) == expected


def test_an_error_is_no_prediction() -> None:
    half = read({"error_code": "BAD_REQUEST", "message": "no such column"}, "response")

    assert (half.layout.protocol, half.facts) == (
        "error",
        {"error": "BAD_REQUEST: no such column"},
    )
