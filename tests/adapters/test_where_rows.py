"""Expressions on one row: three values of truth, and the comparisons of the columns' types."""

from typing import Any

import pytest

from sidelight.adapters._where import parse
from sidelight.adapters._where_rows import Cell, holds

_BIG = 1 << 53


def _truth(text: str, **cells: Cell) -> bool | None:
    return holds(parse(text), lambda column: cells[column.name])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("features.x = 1", True),
        ("features.x != 1", False),
        ("features.x < 1.5", True),
        ("features.x >= 1.5", False),
        ("features.x between 1 and 2", True),
        ("features.x not between 1 and 2", False),
        ("features.x in (2, 1)", True),
        ("features.x in (2, null)", None),
        ("features.x not in (2, null)", None),
        ("features.x = null", None),
        ("features.x = 'a'", None),
        ("features.x is null", False),
        ("features.nothing is null", True),
        ("features.nothing = 1", None),
        ("not features.nothing = 1", None),
        ("features.nothing != 1", None),
        ("features.nothing = 1 or features.x = 1", True),
        ("features.nothing = 1 and features.x = 1", None),
        ("features.nothing = 1 and features.x = 2", False),
        ("not (features.x = 2 or features.x = 3)", True),
    ],
)
def test_truth_has_three_values(text: str, expected: bool | None) -> None:  # noqa: FBT001 - a table
    assert _truth(text, x=Cell("number", 1.0), nothing=Cell("number")) is expected


@pytest.mark.parametrize(
    ("cell", "text", "expected"),
    [
        (Cell("number", _BIG + 1, is_integer=True), f"features.x = {_BIG}", False),
        (Cell("number", _BIG + 1, is_integer=True), f"features.x = {_BIG}.0", False),
        (Cell("number", _BIG + 2, is_integer=True), f"features.x = {_BIG + 2}.0", True),
        (Cell("number", _BIG + 1, is_integer=True), f"features.x > {_BIG}.0", True),
        (Cell("number", float(_BIG)), f"features.x = {_BIG + 1}", True),
        (Cell("number", 0.1, is_single=True), "features.x = 0.1", True),
        (Cell("number", 0.1, is_single=True), "features.x = 0.10000000149011612", True),
        (Cell("number", 0.1), "features.x = 0.10000000149011612", False),
        (Cell("number", 3.0e38, is_single=True), "features.x < 1e300", True),
        # As the API shows the largest of them.
        (Cell("number", 3.4028234663852886e38, is_single=True), "features.x = 3.4028235e38", True),
        (Cell("number", -0.0), "features.x = 0", True),
        (Cell("text", "a\nb"), "features.x like 'a%b'", True),
        (Cell("text", "a\nb"), "features.x like 'a_b'", True),
        (Cell("text", "axb"), "features.x like 'a.b'", False),
        (Cell("text", "ab"), "features.x < 'b'", True),
        (Cell("boolean", True), "features.x = true", True),  # noqa: FBT003 - a value
        (Cell("boolean", True), "features.x = 1", None),  # noqa: FBT003 - a value
        (Cell("other", [1]), "features.x is not null", True),
        (Cell("other", [1]), "features.x = 1", None),
        (Cell("time", 86_400_000_000), "features.x > '1970-01-01'", True),
    ],
)
def test_values_compare_as_their_column_does(cell: Cell, text: str, expected: Any) -> None:
    assert _truth(text, x=cell) is expected
