"""One decoded request or response: what the payload says, before it becomes columns."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol

Side = Literal["request", "response"]

MAX_TABLE_COLUMNS: Final = 1024
"""A tensor with wider rows is an embedding: one feature that holds a list."""

MAX_COLUMNS: Final = 4096
"""No table has more; a payload that says so is stored opaque."""

# What JSON without declared datatypes tells: the classes of V1 values.
NUMBER: Final = "NUMBER"
BOOLEAN: Final = "BOOL"
TEXT: Final = "TEXT"
NOTHING: Final = "NULL"
ENCODED: Final = "B64"
DOCUMENT: Final = "JSON"


class Undecodable(ValueError):  # noqa: N818 - never leaves this package
    """A payload says what it cannot mean; ``reason`` is one word for the counter."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """How one tensor, or one named value, stands in every row of a payload.

    Parameters
    ----------
    name : str or None
        None when the payload names none.
    datatype : str
        V2's word, or for JSON without datatypes one of ``NUMBER BOOL TEXT NULL B64 JSON``.
    shape : tuple of int or None
        Of one row, without the leading dimension; None when it differs from row to row.
    n_columns : int
        How many columns it becomes; 1 for a list.
    is_list : bool
        Whether a row is one list: images, embeddings, sequences.
    is_nested : bool
        Whether the data stood as nested lists rather than flat.
    is_scalar : bool
        Whether it had no leading dimension and was repeated for each row.
    content_type : str or None
        MLServer's ``content_type`` of the tensor.

    """

    name: str | None
    datatype: str
    shape: tuple[int, ...] | None = ()
    n_columns: int = 1
    is_list: bool = False
    is_nested: bool = False
    is_scalar: bool = False
    content_type: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the form kept in a batch's layout."""
        return {
            "name": self.name,
            "datatype": self.datatype,
            "shape": None if self.shape is None else list(self.shape),
            "list": self.is_list,
            "nested": self.is_nested,
            "scalar": self.is_scalar,
            "content_type": self.content_type,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What payloads of one client have in common; equal ones are the same object.

    Parameters
    ----------
    protocol : str
        ``v2-json``, ``v1-row``, ``v1-columnar`` or ``opaque``.
    form : str
        Of a row in V1: ``list``, ``object`` or ``scalar``; of an opaque body ``json``, ``text``,
        ``base64`` or ``empty``; else empty.
    tensors : tuple of Tensor
        In the order of the payload.
    extra : tuple of (str, str)
        Other members that a client must send again: V1's ``signature_name``, V2's
        ``content_type`` of the request.
    whole : bool
        Whether the tensors have different leading dimensions, so that the payload is one row.

    """

    protocol: str
    form: str = ""
    tensors: tuple[Tensor, ...] = ()
    extra: tuple[tuple[str, str], ...] = ()
    whole: bool = False

    def to_json(self, names: list[str]) -> dict[str, Any]:
        """Return the form kept in a batch's layout; ``names`` are those of all columns in order."""
        rest = iter(names)
        tensors = []
        for tensor in self.tensors:
            columns = [next(rest) for _ in range(tensor.n_columns)]
            tensors.append({**tensor.to_json(), "columns": columns})
        return {
            "protocol": self.protocol,
            "form": self.form,
            "whole": self.whole,
            "tensors": tensors,
            **dict(self.extra),
        }


class Half(NamedTuple):
    """One payload.

    ``values`` holds for each tensor of the layout a flat list, row by row: ``rows * n_columns``
    values, or ``rows`` lists when the tensor is one. ``facts`` are what the body says of itself:
    ``version``, ``id``, ``synthetic``, ``empty`` (it had no rows; one row of nulls stands for
    it). ``reason`` says why a body is opaque that looked like something else.
    """

    layout: Layout
    rows: int
    values: tuple[list[Any], ...]
    facts: Mapping[str, Any]
    reason: str | None = None


class Dialect(Protocol):
    """One way to write requests and responses as a JSON object."""

    def claims(self, body: dict[str, Any], side: Side) -> bool:
        """Whether the object is written in this dialect, by its keys alone."""
        ...

    def decode(self, body: dict[str, Any], side: Side) -> Half:
        """Read the object; raise ``Undecodable`` when it contradicts itself."""
        ...
