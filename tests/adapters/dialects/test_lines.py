"""CSV and JSON lines: headers, types of columns, and what is neither."""

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.adapters.dialects import DIALECTS, Half, Side, read_payload
from sidelight.payloads import Event


def read(data: bytes, content_type: str, side: Side = "request") -> Half:
    event = Event(id="1", source="/s", type="t", datacontenttype=content_type)
    return read_payload(data, side, DIALECTS, event=event)


def by_name(half: Half) -> dict[str | None, list[Any]]:
    names = [tensor.name for tensor in half.layout.tensors]
    return dict(zip(names, half.values, strict=True))


@pytest.mark.parametrize(
    ("text", "protocol", "columns"),
    [
        pytest.param("a,b\n1,x\n2,\n", "csv-header", {"a": [1, 2], "b": ["x", None]}, id="header"),
        pytest.param("\ufeffa\n1\n", "csv-header", {"a": [1]}, id="mark of a spreadsheet"),
        pytest.param("a,b\r\n1,2\r\n", "csv-header", {"a": [1], "b": [2]}, id="carriage returns"),
        pytest.param('"a,b",c\n1,2\n', "csv-header", {"a,b": [1], "c": [2]}, id="quoted name"),
        pytest.param("ok\nTrue\nfalse\n", "csv-header", {"ok": [True, False]}, id="flags"),
        pytest.param("x\n1\nb\n", "csv-header", {"x": ["1", "b"]}, id="mixed"),
        pytest.param("x\n1_0\n", "csv-header", {"x": ["1_0"]}, id="no number"),
    ],
)
def test_a_header_names_the_columns(text: str, protocol: str, columns: dict[str, Any]) -> None:
    half = read(text.encode(), "text/csv")

    assert (half.reason, half.layout.protocol) == (None, protocol)
    assert by_name(half) == columns


@pytest.mark.parametrize(
    ("text", "values"),
    [
        pytest.param("1.5,16\n2.5,17", ([1.5, 2.5], [16, 17]), id="numbers"),
        pytest.param("a,1\nb,2", (["a", "b"], [1, 2]), id="a number in the first line"),
        pytest.param("a,a\nb,b", (["a", "b"], ["a", "b"]), id="twice the same"),
        pytest.param("a,b", (["a"], ["b"]), id="one line"),
        pytest.param("0.5", ([0.5],), id="one number, which is JSON too"),
        pytest.param("true", ([True],), id="one flag, which is JSON too"),
    ],
)
def test_lines_without_a_header_have_no_names(text: str, values: tuple[list[Any], ...]) -> None:
    half = read(text.encode(), "text/csv; charset=utf-8")

    assert (half.reason, half.layout.protocol) == (None, "csv-noheader")
    assert half.values == values


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"a,b\n1", "not_csv", id="ragged"),
        pytest.param(b"\xff,\xfe", "not_csv", id="no text"),
        pytest.param(b"\n\n", "not_csv", id="no lines"),
        pytest.param(b'"' + b"x" * 200_000 + b'"', "not_csv", id="huge cell"),
        pytest.param(b"1," * 5000 + b"1", "columns", id="too many columns"),
    ],
)
def test_what_is_no_table_stays_opaque(data: bytes, reason: str) -> None:
    assert read(data, "text/csv").reason == reason


def test_json_that_was_labelled_csv_is_json() -> None:
    half = read(b'{"predictions": [1]}', "text/csv", "response")

    assert half.layout.protocol == "v1-row"


numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=4, unique=True),
    st.integers(1, 4),
    st.data(),
)
@settings(deadline=None)
def test_tables_read_back_with_or_without_a_header(
    names: list[str], rows: int, data: st.DataObject
) -> None:
    row = st.lists(numbers, min_size=len(names), max_size=len(names))
    table = data.draw(st.lists(row, min_size=rows, max_size=rows))
    text = io.StringIO(newline="")
    csv.writer(text).writerows(table)
    plain = text.getvalue()

    columns = [list(column) for column in zip(*table, strict=True)]
    assert list(read(plain.encode(), "text/csv").values) == columns
    named = read((",".join(names) + "\r\n" + plain).encode(), "text/csv")
    assert by_name(named) == dict(zip(names, columns, strict=True))


@pytest.mark.parametrize("media", ["application/jsonlines", "application/x-ndjson"])
@pytest.mark.parametrize("n", [1, 2])
def test_features_in_lines_are_rows(media: str, n: int) -> None:
    data = b'{"features": [1.5, 16]}\n' * n

    half = read(data, media)

    assert (half.layout.protocol, half.rows, half.values) == ("jsonlines", n, ([1.5, 16] * n,))
    assert dict(half.layout.extra) == {"wrapper": "features"}


@given(st.lists(st.fixed_dictionaries({"a": numbers, "b": st.text(max_size=3)}), min_size=2))
@settings(deadline=None)
def test_objects_in_lines_are_rows_whatever_their_content_type(rows: list[dict[str, Any]]) -> None:
    data = "\n".join(map(json.dumps, rows)).encode()

    half = read(data, "application/json")

    assert by_name(half) == {name: [row[name] for row in rows] for name in ("a", "b")}


@given(st.binary(max_size=60), st.sampled_from(["text/csv", "application/jsonlines"]))
def test_no_bytes_make_the_reader_raise(data: bytes, media: str) -> None:
    assert read(data, media).rows >= 1
