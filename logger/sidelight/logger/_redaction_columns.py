"""Which values of a JSON body have the name that a rule gives, as the collector names columns."""

from collections.abc import Callable
from math import prod
from typing import Any, Final

from sidelight.logger._json_path import DROPPED
from sidelight.logger._redaction_rule import Half, RedactionRule, matching_places
from sidelight.logger._redaction_tensors import is_like_tensor, redact_json_tensors
from sidelight.logger._redaction_values import Change, Pseudonyms, as_text, change_of, each
from sidelight.logger.errors import RedactionError

# Names of columns that nobody names: prefix, and that of one which is alone.
_UNNAMED: Final[dict[Half, tuple[str, tuple[str, ...]]]] = {
    "request": ("f", ("f0",)),
    "response": ("y", ("y", "y0")),
}
# A row with more is one feature, an embedding, which has the first name.
_MAX_TABLE_COLUMNS: Final = 1024
_B64: Final = "b64"


class NamedValues:
    """Apply one rule about a column or a tensor to JSON bodies of the known dialects.

    V1 and TF-Serving by row and by column, V2, MLflow, Seldon messages and feedback. Where a name
    is ambiguous, more is redacted rather than less.

    Parameters
    ----------
    rule : RedactionRule
        About a column or a tensor.
    half : "request" or "response"
        Of which the bodies are.
    pseudonyms : Pseudonyms or None
        For ``hmac``.

    """

    def __init__(self, rule: RedactionRule, half: Half, pseudonyms: Pseudonyms | None) -> None:
        self._rule = rule
        self._pseudonyms = pseudonyms
        self._change: Change = change_of(rule, pseudonyms)
        self._prefix, self._alone = _UNNAMED[half]

    def redact(self, body: Any) -> None:
        """Redact a body in place.

        Raises
        ------
        RedactionError
            When it is written in no dialect that is known, or contradicts itself.

        """
        if not isinstance(body, dict):
            raise RedactionError("unknown")
        if "error" in body:
            # The text of an error may quote any value.
            raise RedactionError("error")
        known = [key for key in body if key in _READERS]
        if not known:
            raise RedactionError("unknown")
        for key in known:
            _READERS[key](self, body, key)

    def message_at(self, body: dict[str, Any], key: str) -> None:
        """Redact a message inside of feedback."""
        if body[key]:
            self.redact(body[key])

    def tensors_at(self, body: dict[str, Any], key: str) -> None:
        """Redact V2 tensors, or V1's and MLflow's by column."""
        value = body[key]
        if isinstance(value, dict):
            self._columns(value)
        elif isinstance(value, list) and any(map(is_like_tensor, value)):
            body[key] = redact_json_tensors(value, self._rule, self._pseudonyms)
        elif not (_are_asked_for(value) and key == "outputs" and "inputs" in body):
            self.rows_at(body, key)

    def rows_at(self, body: dict[str, Any], key: str) -> None:
        """Redact a list of rows, one record, or one value."""
        value = body[key]
        if isinstance(value, dict) and not _is_encoded(value):
            self._record(value)
        elif isinstance(value, list):
            self._rows(value)
        else:
            self.single_at(body, key)

    def record_at(self, body: dict[str, Any], key: str) -> None:
        """Redact one record."""
        if not isinstance(body[key], dict):
            raise RedactionError("unknown")
        self._record(body[key])

    def single_at(self, body: dict[str, Any], key: str) -> None:
        """Redact a value that is a row of one column."""
        if self._is_alone(()):
            self._replace(body, key, {_B64: body[key]} if key == "binData" else body[key])

    def split_at(self, body: dict[str, Any], key: str) -> None:
        """Redact MLflow's form with the names apart."""
        split = body[key]
        if not isinstance(split, dict) or not isinstance(split.get("data", []), list):
            raise RedactionError("unknown")
        self._matrix(split.get("data", []), _names_in(split, "columns"))

    def seldon_at(self, body: dict[str, Any], key: str) -> None:
        """Redact Seldon's ``data``."""
        data = body[key]
        if not isinstance(data, dict):
            raise RedactionError("unknown")
        names = _names_in(data, "names")
        known = [form for form in ("ndarray", "tensor", "tftensor") if form in data]
        if len(known) != 1 or known == ["tftensor"]:
            raise RedactionError("unknown")
        if known == ["tensor"]:
            # Its values are numbers and nothing else; the other form takes what becomes of them.
            data["ndarray"] = _nested(data.pop("tensor"))
        if not isinstance(data["ndarray"], list):
            raise RedactionError("unknown")
        self._matrix(data["ndarray"], names)

    def _matrix(self, rows: list[Any], names: list[Any]) -> None:
        """Redact rows whose values have names in order; without names, by their places."""
        if not names:
            self._rows(rows)
            return
        places = [place for place, name in enumerate(names) if self._rule.names(str(name))]
        for number, row in enumerate(rows):
            if isinstance(row, list):
                self._places(row, [place for place in places if place < len(row)])
                if len(row) != len(names):
                    self._row(rows, number)
            elif places or isinstance(row, dict):
                self._row(rows, number, tuple(map(str, names)))

    def _rows(self, rows: list[Any]) -> None:
        for number in range(len(rows)):
            self._row(rows, number)

    def _row(self, rows: list[Any], number: int, names: tuple[str, ...] = ()) -> None:
        row = rows[number]
        if isinstance(row, dict) and not _is_encoded(row):
            self._record(row)
        elif not isinstance(row, list) or any(isinstance(item, list) for item in row):
            if self._is_alone(names):
                rows[number] = _kept_place(each(row, self._change))
            elif isinstance(row, list):
                self._inner(row)
        elif len(row) <= 1 and self._is_alone(names):
            self._places(row, list(range(len(row))))
        else:
            if len(row) > _MAX_TABLE_COLUMNS and self._is_alone(names):
                self._places(row, list(range(len(row))))
            self._places(row, list(self._matching(self._prefix, len(row))))
            self._inner(row)

    def _record(self, record: dict[str, Any]) -> None:
        for name in list(record):
            value = record[name]
            if self._rule.names(name):
                self._replace(record, name, value)
            elif isinstance(value, dict):
                self._record(value)
            elif isinstance(value, list):
                self._places(value, list(self._matching(f"{name}_", len(value))))
                self._inner(value)

    def _columns(self, columns: dict[str, Any]) -> None:
        """Redact named tensors, whose first dimension is that of the rows."""
        for name in list(columns):
            value = columns[name]
            if self._rule.names(name):
                self._replace(columns, name, value)
                continue
            rows = value if isinstance(value, list) else []
            for row in rows:
                if isinstance(row, list):
                    self._places(row, list(self._matching(f"{name}_", len(row))))
                elif isinstance(row, dict):
                    self._record(row)
            if self._rule.action in ("hmac", "mask") and _is_mixed(rows):
                # One tensor has values of one kind.
                columns[name] = each(rows, as_text)

    def _inner(self, items: list[Any]) -> None:
        """Look for records further in: nobody names them, but their keys may be meant."""
        for item in items:
            if isinstance(item, dict):
                self._record(item)
            elif isinstance(item, list):
                self._inner(item)

    def _replace(self, record: dict[str, Any], name: str, value: Any) -> None:
        if self._rule.action == "drop":
            del record[name]
        else:
            record[name] = each(value, self._change)

    def _places(self, row: list[Any], places: list[int]) -> None:
        for place in places:
            row[place] = _kept_place(each(row[place], self._change))

    def _matching(self, prefix: str, n_columns: int) -> tuple[int, ...]:
        return matching_places(self._rule, prefix, n_columns)

    def _is_alone(self, names: tuple[str, ...]) -> bool:
        return self._rule.column is not None and any(map(self._rule.names, self._alone + names))


_READERS: Final[dict[str, Callable[[NamedValues, dict[str, Any], str], None]]] = {
    **dict.fromkeys(("inputs", "outputs"), NamedValues.tensors_at),
    **dict.fromkeys(
        ("instances", "predictions", "examples", "result", "results"), NamedValues.rows_at
    ),
    **dict.fromkeys(("dataframe_records", "jsonData", "customData"), NamedValues.rows_at),
    **dict.fromkeys(("strData", "binData"), NamedValues.single_at),
    **dict.fromkeys(("request", "response", "truth"), NamedValues.message_at),
    "context": NamedValues.record_at,
    "data": NamedValues.seldon_at,
    "dataframe_split": NamedValues.split_at,
}


def has_values(head: dict[str, Any], *, besides: str) -> bool:
    """Whether a V2 body has values in members of other dialects, or of the other half."""
    others = [key for key in head if key in _READERS and key != besides]
    return any(not (key == "outputs" and _are_asked_for(head[key])) for key in others)


def _are_asked_for(items: Any) -> bool:
    """Whether these are the outputs that a V2 request asks for."""
    return isinstance(items, list) and all(
        isinstance(item, dict) and item.keys() <= {"name", "parameters"} and "name" in item
        for item in items
    )


def _names_in(matrix: dict[str, Any], key: str) -> list[Any]:
    """Return the names of columns; none when they are null or missing."""
    names = matrix.get(key)
    if names is None:
        return []
    if not isinstance(names, list):
        raise RedactionError("unknown")
    return names


def _is_mixed(rows: list[Any]) -> bool:
    kinds = {type(value) for row in rows if isinstance(row, list) for value in row}
    return str in kinds and not kinds.isdisjoint((int, float, bool))


def _is_encoded(value: dict[str, Any]) -> bool:
    return value.keys() == {_B64}


def _kept_place(changed: Any) -> Any:
    if isinstance(changed, list):
        return [_kept_place(item) for item in changed]
    return None if changed is DROPPED else changed


def _nested(tensor: Any) -> list[Any]:
    """Return Seldon's flat tensor as rows."""
    if not isinstance(tensor, dict):
        raise RedactionError("unknown")
    shape, values = tensor.get("shape", []), tensor.get("values", [])
    is_flat = isinstance(values, list) and not any(isinstance(item, list) for item in values)
    if not is_flat or not isinstance(shape, list) or not shape:
        raise RedactionError("unknown")
    if any(type(size) is not int or size < 0 for size in shape) or prod(shape) != len(values):
        raise RedactionError("unknown")
    for size in reversed(shape[1:]):
        values = [values[start : start + size] for start in range(0, len(values), size or 1)]
    return list(values)
