"""What `where` finds in the lake is what plain Python says of the rows, file by file."""

import operator as operator_module
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidelight.adapters import WhereError

# A column that is not there is unknown, as is a null; a list is neither equal nor unequal.
_TYPES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "int": (pa.int64(), st.none() | st.integers(-2, 2)),
    "float": (pa.float64(), st.none() | st.sampled_from([-1.5, 0.0, 1.0, float("nan")])),
    "single": (pa.float32(), st.none() | st.sampled_from([0.5, 1.0, 2.0])),
    "text": (pa.string(), st.none() | st.sampled_from(["", "a", "ab", "A", "1"])),
    "flag": (pa.bool_(), st.none() | st.booleans()),
    "list": (pa.list_(pa.float64()), st.none() | st.lists(st.just(1.0), max_size=2)),
}
_SIGNS = {
    "=": operator_module.eq,
    "!=": operator_module.ne,
    "<": operator_module.lt,
    "<=": operator_module.le,
    ">": operator_module.gt,
    ">=": operator_module.ge,
}
_NAMES = ("features.x", 'features.a "b.', "outputs.or")
_WRITTEN = ("features.x", 'features."a ""b."', "outputs.or")


@st.composite
def stored_files(draw: st.DrawFn) -> list[tuple[dict[str, str], list[dict[str, Any]]]]:
    files = []
    for _ in range(draw(st.integers(1, 3))):
        kinds = {name: draw(st.sampled_from([*_TYPES, ""])) for name in _NAMES}
        kinds = {name: kind for name, kind in kinds.items() if kind}
        row = st.fixed_dictionaries({name: _TYPES[kind][1] for name, kind in kinds.items()})
        files.append((kinds, draw(st.lists(row, min_size=1, max_size=4))))
    return files


_LITERALS = (
    st.sampled_from(["-2", "-1", "0", "1", "2", "0.5", "-1.5", "1e0", "null"]),
    st.sampled_from(["'a'", "'ab'", "''", "'A'", "'1'", "'%'"]),
)
_ANY = st.one_of(*_LITERALS, st.sampled_from(["true", "false"]))


@st.composite
def predicates(draw: st.DrawFn) -> tuple[str, str, str, tuple[str, ...]]:
    """Return column, negation, operator and values, mostly of one kind."""
    column = draw(st.sampled_from(_WRITTEN))
    literals = draw(st.sampled_from([*_LITERALS, *_LITERALS, _ANY]))
    operator = draw(st.sampled_from(["=", "!=", "<", ">=", "in", "between", "like", "is null"]))
    negation = draw(st.sampled_from(["", "not "])) if operator in {"in", "between", "like"} else ""
    match operator:
        case "is null":
            return column, draw(st.sampled_from(["", "not "])), operator, ()
        case "in":
            return (
                column,
                negation,
                operator,
                tuple(draw(st.lists(literals, min_size=1, max_size=3))),
            )
        case "between":
            return column, negation, operator, (draw(literals), draw(literals))
        case "like":
            pattern = draw(st.sampled_from(["'a%'", "'_'", "'%'", "''", "'_b'"]))
            return column, negation, operator, (pattern,)
    return column, "", operator, (draw(literals),)


def written(predicate: tuple[str, str, str, tuple[str, ...]]) -> str:
    column, negation, operator, values = predicate
    match operator:
        case "is null":
            return f"{column} is {negation}null"
        case "in":
            return f"{column} {negation}in ({', '.join(values)})"
        case "between":
            return f"{column} {negation}between {values[0]} and {values[1]}"
    return f"{column} {negation}{operator} {values[0]}"


def value_of(literal: str) -> Any:
    match literal:
        case "null":
            return None
        case "true" | "false":
            return literal == "true"
    return literal[1:-1] if literal.startswith("'") else float(literal)


def kind_of(value: Any) -> type:
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)


def compared(value: Any, operator: str, literal: str) -> bool | None:
    other = value_of(literal)
    if value is None or other is None or kind_of(value) is not kind_of(other):
        return None
    return bool(_SIGNS[operator](value, other))


def holds(predicate: tuple[str, str, str, tuple[str, ...]], row: dict[str, Any]) -> bool | None:
    column, negation, operator, values = predicate
    value = row.get(_NAMES[_WRITTEN.index(column)])
    if isinstance(value, float) and value != value:  # noqa: PLR0124 - not a number
        value = None
    found: bool | None
    match operator:
        case "is null":
            found = value is None
        case "in":
            each = [compared(value, "=", item) for item in values]
            found = True if True in each else None if None in each else False
        case "between":
            each = [compared(value, ">=", values[0]), compared(value, "<=", values[1])]
            found = False if False in each else None if None in each else True
        case "like":
            found = like(value, value_of(values[0])) if isinstance(value, str) else None
        case _:
            found = compared(value, operator, values[0])
    return None if found is None else found != bool(negation)


def like(value: str, pattern: str) -> bool:
    if not pattern:
        return not value
    if pattern[0] == "%":
        return any(like(value[n:], pattern[1:]) for n in range(len(value) + 1))
    return bool(value) and pattern[0] in {"_", value[0]} and like(value[1:], pattern[1:])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files=stored_files(), asked=st.lists(predicates(), min_size=1, max_size=3), data=st.data())
def test_the_lake_finds_what_plain_python_finds(
    samples: SimpleNamespace,
    files: list[tuple[dict[str, str], list[dict[str, Any]]]],
    asked: list[tuple[str, str, str, tuple[str, ...]]],
    data: st.DataObject,
) -> None:
    words = [data.draw(st.sampled_from(["and", "or", "and not", "or not"])) for _ in asked[1:]]
    text = written(asked[0])
    for word, predicate in zip(words, asked[1:], strict=True):
        text = f"({text}) {word} {written(predicate)}"

    def wanted(row: dict[str, Any]) -> bool | None:
        found = holds(asked[0], row)
        for word, predicate in zip(words, asked[1:], strict=True):
            joint, _, negated = word.partition(" ")
            other = holds(predicate, row)
            other = None if other is None else other != bool(negated)
            decisive = joint == "or"
            both = (found, other)
            found = decisive if decisive in both else None if None in both else not decisive
        return found

    expected, number = set(), 0
    with tempfile.TemporaryDirectory() as folder:
        store = samples.Store(Path(folder))
        for kinds, rows in files:
            stored = []
            for row in rows:
                stored.append(samples.row(f"i{number}", number, **row))
                expected |= {f"i{number}"} if wanted(row) else set()
                number += 1
            types = {name: _TYPES[kind][0] for name, kind in kinds.items()}
            store.add(samples.batch(stored, types=types))
        refused = ""
        try:
            found = set(store.ids(where=text, limit=1000))
            counted = store.queries.count(where=text)
        except WhereError as error:
            found, counted, refused = set(), 0, error.expected
        finally:
            store.close()

    if refused:
        # A column that nobody stored, or a value of a kind that it never has.
        assert "known column" in refused or is_of_no_kind(asked, files)
    else:
        assert (found, counted) == (expected, len(expected))


def is_of_no_kind(
    asked: list[tuple[str, str, str, tuple[str, ...]]],
    files: list[tuple[dict[str, str], list[dict[str, Any]]]],
) -> bool:
    """Whether some value is of a kind that its column has nowhere, or orders truths."""
    names = {"int": float, "float": float, "single": float, "text": str, "flag": bool}
    for column, _, operator, values in asked:
        name = _NAMES[_WRITTEN.index(column)]
        kinds = {names.get(kinds[name]) for kinds, _ in files if name in kinds}
        for value in map(value_of, values):
            if value is None:
                continue
            if kind_of(value) not in kinds:
                return True
            if isinstance(value, bool) and operator not in {"=", "!=", "in"}:
                return True
    return False
