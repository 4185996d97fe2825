"""The `where` language: what it accepts, what it says of the rest, what it means."""

import operator
import struct
from collections.abc import Callable
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.adapters._where import (
    MAX_LENGTH,
    MAX_NESTING,
    Between,
    ColumnName,
    Comparison,
    Expression,
    IsNull,
    Joined,
    Like,
    Membership,
    Not,
    parse,
)
from sidelight.adapters._where_sql import Kind, Source, check, to_sql
from sidelight.adapters.errors import WhereError

COLUMNS: dict[str, tuple[str, Kind]] = {
    "features.n": ("BIGINT", "number"),
    "features.x": ("DOUBLE", "number"),
    "features.s": ("FLOAT", "number"),
    'features."a ""b"': ("VARCHAR", "text"),
    "labels.flag": ("BOOLEAN", "boolean"),
}
NAMES = {
    "features.n": "features.n",
    "features.x": "features.x",
    "features.s": "features.s",
    'features."a ""b"': 'features.a "b',
    "labels.flag": "labels.flag",
}

numbers = st.one_of(
    st.integers(-5, 5), st.sampled_from([0.1, -2.5, 1e300, 2**53, -(2**70), 3.5e38])
)
texts = st.text(
    st.sampled_from(["a", "b", "%", "_", "'", '"', "\\", "é", "\n", "\x00", ";", "-", "!"]),
    max_size=4,
)
literals = st.one_of(numbers, texts, st.booleans(), st.none())


def written(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value)


@st.composite
def predicates(draw: st.DrawFn) -> str:
    column = draw(st.sampled_from(sorted(COLUMNS)))
    negation = draw(st.sampled_from(["", "not "]))
    match draw(st.integers(0, 5)):
        case 0:
            sign = draw(st.sampled_from(["=", "!=", "<", "<=", ">", ">="]))
            return f"{column} {sign} {written(draw(literals))}"
        case 1:
            values = draw(st.lists(literals, min_size=1, max_size=4))
            return f"{column} {negation}in ({', '.join(map(written, values))})"
        case 2:
            low, high = written(draw(literals)), written(draw(literals))
            return f"{column} {negation}between {low} and {high}"
        case 3:
            return f"{column} {negation}LIKE {written(draw(texts))}"
        case 4:
            parts = draw(st.lists(st.sampled_from(["a", "%", "_", "!%", "!_", "!!", "é"])))
            return f"{column} {negation}like {written(''.join(parts))} ESCAPE '!'"
    return f"{column} is {negation}null"


expressions = st.recursive(
    predicates(),
    lambda inner: st.one_of(
        inner.map(lambda text: f"not {text}"),
        inner.map(lambda text: f"({text})"),
        st.tuples(inner, st.sampled_from(["and", "OR"]), inner).map(" ".join),
    ),
    max_leaves=6,
)

rows = st.fixed_dictionaries(
    {
        "features.n": st.none() | st.integers(-5, 5),
        "features.x": st.none()
        | st.sampled_from([0.1, -2.5, 0.0, 3.0, float("nan"), float("inf")]),
        "features.s": st.none() | st.sampled_from([0.1, -2.5, 0.0, 3.0]),
        'features.a "b': st.none() | texts,
        "labels.flag": st.none() | st.booleans(),
    }
)


def source(column: ColumnName) -> Source:
    place = list(NAMES.values()).index(str(column))
    kind = list(COLUMNS.values())[place][1]
    sql = f"c{place}"
    if column.name == "x":
        sql = f"(CASE WHEN isfinite({sql}) THEN {sql} END)"
    return Source(sql={kind: sql}, single=column.name == "s")


def single(value: float) -> float:
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:
        return float(value)


def evaluate(expression: Expression, row: dict[str, Any]) -> bool | None:
    """SQL's logic of three values, the slow and plain way."""
    match expression:
        case Not():
            return inverted(evaluate(expression.operand, row))
        case Joined():
            found = [evaluate(operand, row) for operand in expression.operands]
            decisive = expression.word == "or"
            if decisive in found:
                return decisive
            return None if None in found else not decisive
        case IsNull():
            answer: bool | None = value_of(row, expression.column) is None
        case Comparison():
            answer = compared(
                row, expression.column, SIGNS[expression.operator], expression.values[0]
            )
        case Between():
            low = compared(row, expression.column, operator.ge, expression.values[0])
            high = compared(row, expression.column, operator.le, expression.values[1])
            answer = False if False in (low, high) else None if None in (low, high) else True
        case Like():
            answer = compared(
                row,
                expression.column,
                lambda value, pattern: like(value, pattern, expression.escape),
                expression.values[0],
            )
        case Membership():
            each = [
                compared(row, expression.column, operator.eq, value) for value in expression.values
            ]
            answer = True if True in each else None if None in each else False
    return inverted(answer) if expression.negated else answer


SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def like(value: str, pattern: str, escape: str) -> bool:
    if not pattern:
        return not value
    if escape and pattern[0] == escape:
        return value[:1] == pattern[1] and like(value[1:], pattern[2:], escape)
    if pattern[0] == "%":
        return any(like(value[n:], pattern[1:], escape) for n in range(len(value) + 1))
    return bool(value) and pattern[0] in {"_", value[0]} and like(value[1:], pattern[1:], escape)


def inverted(answer: bool | None) -> bool | None:  # noqa: FBT001 - three values
    return None if answer is None else not answer


def value_of(row: dict[str, Any], column: ColumnName) -> Any:
    value = row[str(column)]
    if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):  # noqa: PLR0124
        return None
    return single(value) if column.name == "s" and value is not None else value


def compared(
    row: dict[str, Any], column: ColumnName, sign: Callable[[Any, Any], bool], literal: Any
) -> bool | None:
    value, other = value_of(row, column), literal.value
    if value is None or other is None:
        return None
    if {type(value), type(other)} <= {int, float}:
        return sign(value, single(other) if column.name == "s" else other)
    return sign(value, other) if type(value) is type(other) else None


@settings(max_examples=250, deadline=None)
@given(text=expressions, table=st.lists(rows, min_size=1, max_size=5))
def test_an_expression_means_what_a_naive_evaluator_says(
    text: str, table: list[dict[str, Any]]
) -> None:
    expression = parse(text)
    sql, parameters = to_sql(expression, source)
    connection = DATABASE.cursor()
    types = ", ".join(f"c{place} {kind}" for place, (kind, _) in enumerate(COLUMNS.values()))
    connection.execute(f"CREATE OR REPLACE TEMP TABLE t (i INTEGER, {types})")
    for number, row in enumerate(table):
        values = [row[name] for name in NAMES.values()]
        connection.execute("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", [number, *values])

    found = connection.execute(f"SELECT {sql} FROM t ORDER BY i", parameters).fetchall()

    assert [item for (item,) in found] == [evaluate(expression, row) for row in table]


DATABASE = duckdb.connect(":memory:", config={"threads": 1})


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(max_size=60),
        st.lists(
            st.sampled_from(
                [
                    "features.a",
                    "(",
                    ")",
                    "and",
                    "or",
                    "not",
                    "in",
                    "between",
                    "like",
                    "is",
                    "null",
                    "=",
                    "!=",
                    "'",
                    '"',
                    ",",
                    "1",
                    "-",
                    ";",
                    "--",
                    "/*",
                    "\x00",
                    " ",
                ]
            ),
            max_size=12,
        ).map(" ".join),
    )
)
def test_any_text_is_an_expression_or_an_error_that_points_into_it(text: str) -> None:
    error = error_of(text)

    if error is not None:
        assert 0 <= error.position <= len(text)
        assert error.expected
        assert str(error).splitlines()[-1] == " " * error.position + "^"


def error_of(text: str) -> WhereError | None:
    try:
        parse(text)
    except WhereError as error:
        return error
    return None


@pytest.mark.parametrize(
    "text",
    [
        "features.a = 1; drop table f",
        "features.a = 1 -- ",
        "features.a = 1 /* */",
        "features.a = 'x' union select 1",
        "1 = 1",
        "features.a = features.b",
        "features.a = (select 1)",
        "read_text('/etc/passwd') = 'x'",
        "exists (select 1)",
        "features.a = 'x' || 'y'",
        "features.a = upper('x')",
        "features.a::text = 'x'",
        "c0 = ?",
        "features.a = $1",
        "features.a == 1",
        "features.a <> 1",
        "features.a = 1 and",
        "features.a in ()",
        "features.a in (1,)",
        "features.a is 1",
        "features.a not = 1",
        "features.a between 1",
        "features.a like 1",
        "features.a like 'x' escape",
        "features.a like 'x' escape '%'",
        "features.a like 'x' escape '!!'",
        "features.a like 'x' escape ''",
        "features.a like 'x' escape 'é'",
        "features.a like 'x!' escape '!'",
        "features.a like 'x!y' escape '!'",
        "features.a like 'x!!!' escape '!'",
        "features.a = 'x' escape '!'",
        "features.a = 12abc",
        "features.a = 1.2.3",
        "features.a = 'open",
        'features."open = 1',
        "tables.a = 1",
        "features. = 1",
        "(features.a = 1",
        "features.a = 1)",
        "features.a = 1e999",
        "features.a = '\ud800'",
        "",
        "   ",
    ],
)
def test_what_is_no_expression_is_a_syntax_error(text: str) -> None:
    with pytest.raises(WhereError) as caught:
        checked(text)

    assert caught.value.position <= len(text)


def checked(text: str) -> None:
    known: dict[str, set[Kind]] = {
        "features.a": {"number", "text"},
        "status": {"number"},
        "labels.late": {"boolean"},
    }
    check(text, parse(text), lambda column: known.get(str(column)), lambda _: known)


def test_an_error_shows_the_place() -> None:
    with pytest.raises(WhereError) as caught:
        parse("status = 200 and\nlatency_ms >")

    error = caught.value
    assert (error.position, error.got) == (29, "the end")
    assert str(error) == (
        "where, at character 30: expected a number, a 'string', true, false or null, got the end\n"
        "status = 200 and?latency_ms >\n" + " " * 29 + "^"
    )


@pytest.mark.parametrize("text", ["a = 1", "features.a-b = 1", "features.a b = 1", 'a."b" = 1'])
def test_who_names_a_column_wrongly_is_told_how(text: str) -> None:
    with pytest.raises(WhereError) as caught:
        checked(text)

    assert "features" in caught.value.expected


def test_an_unknown_column_is_answered_with_near_names() -> None:
    with pytest.raises(WhereError) as caught:
        checked("labels.lat = true or features.a = 1")

    assert (caught.value.position, caught.value.got) == (0, "labels.lat")
    assert "labels.late" in caught.value.expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("status = 'x'", "a number"),
        ("labels.late = 1", "true or false"),
        ("labels.late > true", "= or != with true and false"),
        ("status like 'x'", "a number"),
        ("features.a = true", "a 'string'"),
        ("status in (1, 'x')", "a number"),
    ],
)
def test_a_value_that_a_column_never_has_is_an_error(text: str, expected: str) -> None:
    with pytest.raises(WhereError) as caught:
        checked(text)

    assert expected in caught.value.expected


def test_length_and_nesting_are_bounded() -> None:
    for text in (
        "status = 1" + " " * MAX_LENGTH,
        "(" * (MAX_NESTING + 1) + "status = 1" + ")" * (MAX_NESTING + 1),
        "not " * (MAX_NESTING + 1) + "status = 1",
    ):
        with pytest.raises(WhereError, match="at most"):
            parse(text)

    assert isinstance(
        parse("(" * (MAX_NESTING - 1) + "status = 1" + ")" * (MAX_NESTING - 1)), Comparison
    )


@pytest.mark.parametrize(
    "text",
    [
        " or ".join(["features.n=1"] * 250),
        f"features.n in ({','.join(['7'] * 2000)})",
        "(" * 63 + "features.n=1" + ")" * 63,
        "not " * 63 + "features.n=1",
    ],
    ids=["terms", "list", "parentheses", "negations"],
)
def test_the_largest_expressions_are_answered(text: str) -> None:
    sql, parameters = to_sql(parse(text), source)
    columns = ", ".join(
        f"CAST(NULL AS {kind}) AS c{i}" for i, (kind, _) in enumerate(COLUMNS.values())
    )

    assert DATABASE.cursor().execute(f"SELECT {sql} FROM (SELECT {columns})", parameters).fetchall()


def test_and_binds_tighter_than_or_and_not_tightest() -> None:
    expression = parse("not status = 1 or status = 2 and status = 3")

    assert isinstance(expression, Joined)
    assert expression.word == "or"
    assert isinstance(expression.operands[0], Not)
    assert isinstance(expression.operands[1], Joined)
    assert expression.operands[1].word == "and"
