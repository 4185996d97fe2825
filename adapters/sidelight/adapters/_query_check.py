"""Comparing a ``where`` expression with what is stored."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from sidelight.adapters._query_columns import OWN_COLUMNS, SCORE, kind_of, own_kind
from sidelight.adapters._where import ColumnName, Expression
from sidelight.adapters._where_sql import Kind, check


class HasColumns(Protocol):
    """A file of the lake, or what documents have in common."""

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """Names and Arrow types."""
        ...


class KnownLabels(Protocol):
    """Which labels there are."""

    @property
    def known(self) -> set[str]:
        """Their names."""
        ...

    def kinds(self, name: str) -> Iterable[Kind] | None:
        """Return the kinds of one; None when there are labels but not this one."""
        ...


def check_columns(
    text: str, where: Expression, files: Sequence[HasColumns], labels: KnownLabels | None
) -> None:
    """Raise ``WhereError`` for a column that no file has, or a value that none can have.

    All files of the deployment count, not only those of the asked time, so that one expression is
    right or wrong whatever the time is.
    """
    stored = _kinds(files)

    def kinds(column: ColumnName) -> Iterable[Kind] | None:
        if column.section == "labels":
            return labels.kinds(column.name) if labels else ()
        if not column.section:
            kind = own_kind(column.name)
            return {kind} if kind else None
        # As long as nothing is stored, nobody can say which names there are.
        return stored.get(str(column)) if stored else ()

    def candidates(column: ColumnName) -> list[str]:
        if column.section == "labels":
            return [f"labels.{name}" for name in labels.known] if labels else []
        named = [name for name in stored if name.startswith(("features.", "outputs."))]
        return named if column.section else [*OWN_COLUMNS, SCORE, *named]

    check(text, where, kinds, candidates)


def _kinds(files: Sequence[HasColumns]) -> dict[str, set[Kind]]:
    stored: dict[str, set[Kind]] = {}
    for columns in {file.columns for file in files}:
        for name, arrow_type in columns:
            kind = kind_of(arrow_type)
            stored.setdefault(name, set()).update({kind} if kind else ())
    return stored
