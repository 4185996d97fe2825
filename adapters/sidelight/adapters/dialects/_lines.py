"""Payloads of lines: CSV, with a header as MLflow's or without as SageMaker's, and JSON lines."""

import csv
from collections.abc import Iterable
from typing import Any, Final

from sidelight.adapters.dialects._half import MAX_COLUMNS, Half, Undecodable
from sidelight.adapters.dialects._lenient_json import lenient_json
from sidelight.adapters.dialects._v1 import unwrapped
from sidelight.adapters.dialects._values import column, of_columns, of_items

_FLAGS: Final = {"true": True, "false": False}
_MAX_DIGITS: Final = 30


def csv_table(data: bytes) -> Half:
    """Read CSV.

    The first line is a header when none of its cells is a number or empty, no two are the same,
    and lines follow it. Columns are numbers, booleans or text by what all their cells are; an
    empty cell is missing.

    Raises
    ------
    Undecodable
        When it is no text, or its lines differ in length.

    """
    try:
        # The mark that spreadsheets write in front is no part of the first name.
        lines = [line for line in csv.reader(data.decode("utf-8-sig").splitlines()) if line]
    except (UnicodeDecodeError, csv.Error):
        raise Undecodable("not_csv") from None
    if not lines or len({len(line) for line in lines}) > 1:
        raise Undecodable("not_csv")
    if len(lines[0]) > MAX_COLUMNS:
        raise Undecodable("columns")
    names: list[str] | list[None] = [None] * len(lines[0])
    protocol = "csv-noheader"
    if len(lines) > 1 and _is_header(lines[0]):
        names, protocol, lines = lines[0], "csv-header", lines[1:]
    columns = [
        column(name, _typed(cells))
        for name, cells in zip(names, zip(*lines, strict=True), strict=True)
    ]
    return of_columns(protocol, "list", columns, rows=len(lines), facts={})


def json_lines(data: bytes) -> Half:
    """Read one JSON value a line: SageMaker's ``{"features": [...]}``, objects or lists.

    Raises
    ------
    Undecodable
        When a line is no JSON.

    """
    items = [lenient_json(line) for line in data.splitlines() if line.strip()]
    if not items:
        raise Undecodable("not_json")
    extra: tuple[tuple[str, str], ...] = ()
    if (inner := unwrapped(items)) is not None:
        items, extra = inner, (("wrapper", "features"),)
    form, columns = of_items(items)
    return of_columns("jsonlines", form, columns, rows=len(items), facts={}, extra=extra)


def _is_header(cells: list[str]) -> bool:
    return len(set(cells)) == len(cells) and all(cell and _number(cell) is None for cell in cells)


def _typed(cells: Iterable[str]) -> list[Any]:
    texts = [cell.strip() or None for cell in cells]
    for read in (_number, _flag):
        values = [None if text is None else read(text) for text in texts]
        if all(
            value is not None or text is None for value, text in zip(values, texts, strict=True)
        ):
            return values
    return [cell or None for cell in cells]


def _number(text: str) -> int | float | None:
    if "_" in text:
        return None
    try:
        return int(text) if len(text) <= _MAX_DIGITS else float(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return None


def _flag(text: str) -> bool | None:
    return _FLAGS.get(text.lower())
