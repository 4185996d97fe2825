"""Bodies that differ in an id, a number of rows and numbers alone: read once, then recognised.

What a client sends is the same text around other numbers. Its bodies are cut at these, the
numbers of many bodies are parsed in one go, and nothing else of them is looked at. Whatever is
unusual about a body is left to the dialects, so that both give the same values.
"""

import re
from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from typing import Any, Final

import msgspec
import orjson

from sidelight.adapters._decoding_columns import REAL_DATATYPES, Values
from sidelight.adapters.dialects import Half
from sidelight.adapters.dialects._half import NUMBER

_ARRAY: Final = re.compile(rb'"(?:data|instances|predictions|ndarray|values)"\s*:\s*\[')
_INSIDE: Final = re.compile(rb"([^\[\]{}]+)(?=\])")
_LISTS_INSIDE: Final = re.compile(rb'(\[[^{}"]*\])(?=\])')
_ID: Final = "id"
_ROWS: Final = "rows"
_VARIABLE: Final = re.compile(
    rb'(?:"(?:id|puid)"\s*:\s*")(?P<id>[ !#-\[\]-~]{1,256})(?=")'
    rb'|(?:"shape"\s*:\s*\[\s*)(?P<rows>[1-9][0-9]{0,8})(?=[\s,\]])'
)
_PATTERNS: Final = {_ID: rb"([ !#-\[\]-~]{1,256})", _ROWS: rb"([1-9][0-9]{0,8})"}
_MAX_BYTES: Final = 1 << 20
# Each byte around the numbers costs a microsecond to learn and some twenty to remember.
_MAX_AROUND: Final = 16 << 10
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]"))
_CLASSES: Final = ({int}, {float}, {int, float})
_EXACT: Final = 1 << 53
_AROUND_ONE: Final = 2

_Text = tuple[bytes | str, ...]
"""Bytes that are the same each time, and the names of what is not."""


class Cut(msgspec.Struct, gc=False):
    """A body without its numbers.

    Parameters
    ----------
    shape : Shape
        What it has in common with others.
    body_id : bytes
        What it calls itself; empty when nothing.
    rows : int
        As it says; 0 when it says so by its numbers alone.
    fragments : tuple of bytes
        The inside of each array of numbers.

    """

    shape: "Shape"
    body_id: bytes
    rows: int
    fragments: tuple[bytes, ...]


class Shape:
    """The text around the numbers of a client's bodies, and what it means.

    Parameters
    ----------
    half : Half
        What a dialect read of one of them.
    texts : sequence of bytes
        What stands around its numbers: one more than there are arrays.
    is_nested : bool
        Whether the one array holds a list for each row.
    has_rows : bool
        Whether the number of rows that is stated differs from body to body.

    Attributes
    ----------
    are_real : tuple of bool
        Of each array, whether doubles hold all that it can.

    """

    def __init__(
        self, half: Half, texts: Sequence[bytes], *, is_nested: bool, has_rows: bool
    ) -> None:
        tensors = self._tensors = half.layout.tensors
        self.half = half
        self.layout = half.layout
        self.is_nested = is_nested
        self._texts = _with_variables(texts, half, has_rows=has_rows)
        self.key = half.layout, is_nested, _with_variables(texts, half, has_rows=True)
        names = [part for text in self._texts for part in text if isinstance(part, str)]
        self._id_places = [place for place, name in enumerate(names) if name == _ID]
        self._row_places = [place for place, name in enumerate(names) if name == _ROWS]
        # V2 and Seldon's tensors state a shape; rows that nobody states are those that are there.
        self._is_stated = any(b'"shape"' in text for text in texts)
        self._widths = [1 if is_nested else tensor.n_columns for tensor in tensors]
        self._row_width = sum(tensor.n_columns for tensor in tensors)
        self._is_by_column = is_nested and len(tensors) > 1
        self._is_classed = any(tensor.datatype == NUMBER for tensor in tensors)
        self.are_real = tuple(
            [not is_nested and tensor.datatype in REAL_DATATYPES for tensor in tensors]
        )
        self._first, *self._others = [re.compile(_pattern(text)).match for text in self._texts]
        self._tail = texts[-1]
        self.text_bytes = sum(map(len, texts))
        self._id_group, self._rows_group = (
            places[0] + 1 if places else 0 for places in (self._id_places, self._row_places)
        )
        self._is_simple = (
            not is_nested
            and len(texts) == _AROUND_ONE
            and len(self._texts[-1]) == 1
            and max(len(self._id_places), len(self._row_places)) < _AROUND_ONE
        )
        self.is_plain = self._is_simple and not self._is_classed
        self.width = self._widths[0]
        self._rows = half.rows if self._is_stated else 0

    @property
    def has_id(self) -> bool:
        """Whether bodies of this shape have an id of their own."""
        return bool(self._id_places)

    def cut(self, body: bytes) -> Cut | None:
        """Return a body of this shape; None for another one."""
        match = self._first(body)
        if match is None:
            return None
        start = match.end()
        if self._is_simple:
            # One flat array and nothing that differs behind it, as most bodies are.
            end = body.find(b"]", start)
            if end <= start or body[end:] != self._tail:
                return None
            body_id = match[self._id_group] if self._id_group else b""
            rows = int(match[self._rows_group]) if self._rows_group else self._rows
            return Cut(self, body_id, rows, (body[start:end],))
        found = self._inside(body, start, match.groups())
        if found is None:
            return None
        said, fragments = found
        stated_id = _only(said, self._id_places) if self._id_places else b""
        stated = _only(said, self._row_places) if self._row_places else self._rows
        if stated_id is None or stated is None:
            return None
        return Cut(self, stated_id, int(stated), fragments)

    def _inside(
        self, body: bytes, start: int, said: tuple[bytes, ...]
    ) -> tuple[tuple[bytes, ...], tuple[bytes, ...]] | None:
        """Return what differs in the texts of a body and the insides of its arrays."""
        if self.is_nested:
            fragment = body[start : len(body) - len(self._tail)]
            is_whole = body.endswith(self._tail)
            if not is_whole or fragment[:1] != b"[" or fragment[-1:] != b"]":
                return None
            # Lists one behind the other: what is deeper, or closes more than it opens, would make
            # of its neighbours' numbers something else where all are parsed at once.
            brackets = fragment.translate(None, _NO_BRACKETS)
            return (said, (fragment,)) if brackets == b"[]" * (len(brackets) // 2) else None
        fragments = []
        for other in self._others:
            end = body.find(b"]", start)
            match = other(body, end) if end > start else None
            if match is None:
                return None
            fragments.append(body[start:end])
            said += match.groups()
            start = match.end()
        return None if start < len(body) else (said, tuple(fragments))

    def values(self, cut: Cut, lists: Sequence[Values]) -> tuple[int, tuple[Values, ...]] | None:
        """Return rows and values of a body; None when it is not what its text says.

        Parameters
        ----------
        cut : Cut
            The body.
        lists : sequence of list or array
            What was parsed of its fragments; an array of real ones alone.

        """
        if self.is_nested:
            read = self._nested(list(lists[0]))
            return read if read is None or cut.rows in {0, read[0]} else None
        rows = cut.rows or len(lists[0]) // self._widths[0]
        for values, width in zip(lists, self._widths, strict=True):
            if len(values) != rows * width:
                return None
            if self._is_classed and not (isinstance(values, list) and _are_numbers(values)):
                return None
        return rows, tuple(lists)

    def is_proven(self, read: Callable[[bytes], Half]) -> bool:
        """Whether the dialects read another body of this shape as it is read here."""
        rows = self.half.rows if self._is_stated and not self._row_places else self.half.rows + 1
        widths = [self._row_width] if self.is_nested else self._widths
        kinds = [float if self.is_nested or t.datatype != "BYTES" else str for t in self._tensors]
        arrays = [
            [kind(31.25 * place + number) for place in range(rows * width)]
            for number, (width, kind) in enumerate(zip(widths, kinds, strict=False))
        ]
        fragments = [_written(values, self._row_width, self.is_nested) for values in arrays]
        said = {_ID: b"another", _ROWS: b"%d" % rows}
        texts = [
            b"".join([said[part] if isinstance(part, str) else part for part in text])
            for text in self._texts
        ]
        body = b"".join(chain.from_iterable(zip(texts, [*fragments, b""], strict=True)))
        cut, half = self.cut(body), read(body)
        values = cut and self.values(cut, _parsed_each(cut.fragments, self.is_nested))
        facts = {**self.half.facts, _ID: "another"} if self.has_id else self.half.facts
        return (
            values is not None
            and half.layout is self.layout
            and (half.rows, half.values) == values
            and (dict(half.facts), half.reason) == (dict(facts), None)
        )

    def _nested(self, rows: list[Any]) -> tuple[int, tuple[Values, ...]] | None:
        width = self._row_width
        if set(map(type, rows)) != {list} or set(map(len, rows)) != {width}:
            return None
        flat = list(chain.from_iterable(rows))
        if not _are_numbers(flat):
            return None
        if self._is_by_column:
            return len(rows), tuple([flat[place::width] for place in range(width)])
        return len(rows), (flat,)


def learned(
    body: bytes, half: Half, known: Sequence[Shape], read: Callable[[bytes], Half]
) -> Shape | None:
    """Return the shape of a body that a dialect read; None when it has none that is worth it.

    Parameters
    ----------
    body : bytes
        As it came.
    half : Half
        What was read of it.
    known : sequence of Shape
        Those of the same client. A body that differs from one of them by its number of rows has
        a shape with any number.
    read : callable of bytes to Half
        Reads another body: what is taken for an id, or for numbers, is tried with others.

    """
    tensors = half.layout.tensors
    if half.reason or not tensors or len(body) > _MAX_BYTES or "empty" in half.facts:
        return None
    if half.layout.whole or any(
        tensor.is_list or tensor.is_scalar or not tensor.n_columns for tensor in tensors
    ):
        return None
    for is_nested in (False, True):
        texts = _around_numbers(body, half, is_nested=is_nested)
        if texts is None or sum(map(len, texts)) > _MAX_AROUND:
            continue
        key = Shape(half, texts, is_nested=is_nested, has_rows=True).key
        has_rows = any(other.key == key for other in known)
        shape = Shape(half, texts, is_nested=is_nested, has_rows=has_rows)
        if shape.is_proven(read):
            return shape
    return None


def parsed(fragments: Sequence[bytes], *, is_nested: bool) -> list[list[Any] | None]:
    """Return the numbers inside of arrays; None where they are no JSON by themselves.

    All are parsed at once. That each came out by itself is certain: a flat fragment has no closing
    bracket, and none of the brackets between them can be inside of a string without one list less
    in the end. A fragment of lists begins and ends with a bracket, and each of its brackets that
    opens is closed by the next one: none of those between them can be inside of it.
    """
    lists = _parsed_together(fragments, is_nested=is_nested)
    if lists is not None:
        return lists
    if len(fragments) == 1:
        return [None]
    middle = len(fragments) // 2
    return [
        *parsed(fragments[:middle], is_nested=is_nested),
        *parsed(fragments[middle:], is_nested=is_nested),
    ]


def _parsed_together(fragments: Sequence[bytes], *, is_nested: bool) -> list[Any] | None:
    text = b"[[" + b"],[".join(fragments) + b"]]"
    if is_nested and b'"' in text:
        return None
    try:
        lists: list[Any] = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return lists if len(lists) == len(fragments) else None


def _parsed_each(fragments: Sequence[bytes], is_nested: bool) -> list[Any]:  # noqa: FBT001 - as is
    return [item or [] for item in parsed(fragments, is_nested=is_nested)]


def _only(said: Sequence[bytes], places: Sequence[int]) -> bytes | None:
    """Return what all of some places say, None when they differ."""
    first = said[places[0]]
    if len(places) > 1 and any(said[place] != first for place in places):
        return None
    return first


def _are_numbers(values: list[Any]) -> bool:
    """Whether all are of the class of numbers, which integers beyond a double are not."""
    kinds = set(map(type, values))
    if kinds not in _CLASSES:
        return False
    return int not in kinds or (min(values) >= -_EXACT and max(values) <= _EXACT)


def _around_numbers(body: bytes, half: Half, *, is_nested: bool) -> list[bytes] | None:
    """Return what stands around the numbers of a body; None when they are not where they seem."""
    inside = _LISTS_INSIDE if is_nested else _INSIDE
    found = [inside.match(body, match.end()) for match in _ARRAY.finditer(body)]
    spans = [match.span(1) for match in found if match]
    if len(spans) != (1 if is_nested else len(half.layout.tensors)):
        return None
    ends = [0, *chain.from_iterable(spans), len(body)]
    texts = [body[begin:end] for begin, end in list(pairwise(ends))[::2]]
    # What a text says behind lists is looked for from the end, and must not change.
    return None if is_nested and _VARIABLE.search(texts[-1]) else texts


def _with_variables(texts: Sequence[bytes], half: Half, *, has_rows: bool) -> tuple[_Text, ...]:
    """Return texts with names in the places of the id and of the number of rows."""
    said = half.facts.get(_ID)
    body_id = said.encode() if isinstance(said, str) else None
    return tuple([_with_names(text, body_id, has_rows=has_rows) for text in texts])


def _with_names(text: bytes, body_id: bytes | None, *, has_rows: bool) -> _Text:
    parts: list[bytes | str] = []
    end = 0
    for found in _VARIABLE.finditer(text):
        name = found.lastgroup
        if (name == _ID and found[_ID] == body_id) or (name == _ROWS and has_rows):
            begin = found.start(name)
            parts += [text[end:begin], name]
            end = found.end(name)
    return (*parts, text[end:])


def _pattern(text: _Text) -> bytes:
    return b"".join([_PATTERNS[p] if isinstance(p, str) else re.escape(p) for p in text])


def _written(values: list[Any], width: int, is_nested: bool) -> bytes:  # noqa: FBT001 - as is
    if not is_nested:
        return orjson.dumps(values)[1:-1]
    rows = [values[start : start + width] for start in range(0, len(values), width)]
    return orjson.dumps(rows)[1:-1]
