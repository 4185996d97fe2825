"""CSV as people have it: what separates cells, and what is a number."""

from pathlib import Path
from typing import Any

import pytest

from sidelight.service._import_csv import CsvForm, csv_rows
from sidelight.service.errors import BadRequest, ConfigurationError


def _column(tmp_path: Path, *cells: str, form: CsvForm | None = None) -> list[Any]:
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(["x;y", *(f"{cell};." for cell in cells)]) + "\n")
    return [row["x"] for row in csv_rows(path, form)]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        pytest.param(("007", "12"), ["007", "12"], id="zeros before a number"),
        pytest.param(("12", "-07"), ["12", "-07"], id="signed zeros"),
        pytest.param(("0x1F", "12"), ["0x1F", "12"], id="hexadecimal"),
        pytest.param(("0", "12"), [0, 12], id="zero alone"),
        pytest.param(("0.5", "00.5", "-0"), [0.5, 0.5, 0.0], id="fractions"),
        pytest.param(("1", "18446744073709551615"), [1, 2**64 - 1], id="64 bits"),
        pytest.param(("1", "1" * 20), [1, 11111111111111111111], id="20 digits of 64 bits"),
        pytest.param(("1", "2" * 20), ["1", "2" * 20], id="20 digits of more"),
        pytest.param(("1", "1" * 25), ["1", "1" * 25], id="a long id"),
        pytest.param(("1", "1e30"), [1.0, 1e30], id="an exponent"),
        pytest.param(("1,5", "2"), ["1,5", "2"], id="decimal commas unsaid"),
    ],
)
def test_what_no_number_keeps_stays_text(
    tmp_path: Path, cells: tuple[str, ...], values: list[Any]
) -> None:
    assert _column(tmp_path, *cells) == values


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        pytest.param(("1,5", "2", ""), [1.5, 2.0, None], id="decimal comma"),
        pytest.param(("1.234,5",), ["1.234,5"], id="a dot between thousands"),
        pytest.param(("1.5", "2,5"), ["1.5", "2,5"], id="both"),
        pytest.param(("a,b", "1,5"), ["a,b", "1,5"], id="text with a comma"),
        pytest.param(("01,5", "2"), [1.5, 2.0], id="a zero before"),
    ],
)
def test_commas_of_numbers_are_read_where_they_are_said(
    tmp_path: Path, cells: tuple[str, ...], values: list[Any]
) -> None:
    assert _column(tmp_path, *cells, form=CsvForm(decimal_comma=True)) == values


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        pytest.param("a;b\n1;x,y\n", [{"a": 1, "b": "x,y"}], id="semicolon"),
        pytest.param("a\tb\n1\tx;y\n", [{"a": 1, "b": "x;y"}], id="tab"),
        pytest.param("a|b\n1|2\n", [{"a": 1, "b": 2}], id="bar"),
        pytest.param('"x;y;z",b\n1,2\n', [{"x;y;z": 1, "b": 2}], id="semicolons in quotes"),
        pytest.param("a,b;c\n1,2\n", [{"a": 1, "b;c": 2}], id="as often: comma"),
        pytest.param("a\n1\n", [{"a": 1}], id="one column"),
        pytest.param("\ufeffa;b\r\n1;2\r\n", [{"a": 1, "b": 2}], id="byte order mark"),
    ],
)
def test_the_delimiter_is_the_one_that_names_have_most_of(
    tmp_path: Path, text: str, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(text.encode())

    assert list(csv_rows(path)) == rows


def test_a_delimiter_that_is_given_is_the_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a;b;c,d\n1;2;3,4\n")

    assert list(csv_rows(path, CsvForm(delimiter=","))) == [{"a;b;c": "1;2;3", "d": 4}]
    for wrong in ("", ";;", '"', "\n", "§"):
        with pytest.raises(ConfigurationError, match="--delimiter"):
            CsvForm(delimiter=wrong)


def test_columns_that_are_to_be_text_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("version,x\n1.10,1.10\n2,2\n")

    assert [*csv_rows(path, text=("version", None))] == [
        {"version": "1.10", "x": 1.1},
        {"version": "2", "x": 2.0},
    ]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig"])
def test_characters_are_read_as_they_are_said_to_be_written(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("größe;b\nä;1\n".encode(encoding))

    assert list(csv_rows(path, CsvForm(encoding=encoding))) == [{"größe": "ä", "b": 1}]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("größe,b\n1,2\n".encode("cp1252"), id="in a name"),
        pytest.param(b"a,b\n" + b"1,2\n" * 10_000 + b"\xe4,2\n", id="in a cell"),
    ],
)
def test_characters_of_another_encoding_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(data)

    with pytest.raises(BadRequest, match="CSV in utf-8"):
        list(csv_rows(path))
    for unknown in ("rot13", "none", "a\nb"):
        with pytest.raises(ConfigurationError, match="--encoding"):
            CsvForm(encoding=unknown)
