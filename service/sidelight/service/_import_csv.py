"""Rows of the CSV that ``sidelight import`` reads: what separates cells, and what columns are."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from sidelight.service._import_reading import arrow_stream, check_names, not_read, opened
from sidelight.service.errors import BadRequest, ConfigurationError

_BLOCK_BYTES: Final = 4 << 20
_FIRST_LINE: Final = 1 << 20
# The first of those that are there equally often.
_DELIMITERS: Final = (",", ";", "\t", "|")
# What the text of a column may be read as, the narrowest first; text otherwise.
_TYPES: Final = (pa.int64(), pa.uint64(), pa.float64(), pa.bool_())
# No number keeps the zeros of a postcode, and no float the digits of a long id.
_CODE: Final = "^[+-]?0([0-9]+$|[xX])"
_LONG: Final = "^[+-]?[0-9]{20,}$"


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvForm:
    """How a file of CSV is written.

    Parameters
    ----------
    delimiter : str, optional
        One character between cells; without it that of comma, semicolon, tab and bar which
        the line of names has most of.
    decimal_comma : bool, default False
        Numbers are written as ``1,5``.
    encoding : str, default "utf-8"
        Of the characters, by its name in Python.

    Raises
    ------
    ConfigurationError
        When the delimiter is not one character that can separate, or nobody knows the encoding.

    """

    delimiter: str | None = None
    decimal_comma: bool = False
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        try:
            "".encode(self.encoding)
        except (LookupError, ValueError):
            raise ConfigurationError(
                f"--encoding: expected one such as utf-8, cp1252 or utf-16, got {self.encoding!r}"
            ) from None
        given = self.delimiter
        if given is not None and (len(given) != 1 or not given.isascii() or given in '"\r\n'):
            raise ConfigurationError(
                f"--delimiter: expected one ASCII character other than a quote, got {given!r}"
            )


def csv_rows(
    path: Path, form: CsvForm | None = None, *, text: Collection[str | None] = ()
) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of CSV with a line of names.

    A column has one type, that of all its cells: a block of whole numbers says nothing of the
    next. Empty cells, and ``NA``, ``NULL`` and their like, are null without quotes.

    Parameters
    ----------
    path : Path
        The file, plain or gzip.
    form : CsvForm, optional
        How it is written.
    text : collection of str
        Columns that are text whatever they look like.

    """
    form = form or CsvForm()
    try:
        types = {name: kind for name, kind in _types(path, form).items() if name not in text}
        for batch in _batches(path, form):
            columns = [
                _numbers(column, form).cast(types[name]) if name in types else column
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            ]
            yield from pa.RecordBatch.from_arrays(columns, names=batch.schema.names).to_pylist()
    except UnicodeError:
        raise BadRequest(f"expected CSV in {form.encoding}, got other bytes: --encoding") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise not_read(f"CSV in {form.encoding} with a line of names", error) from error


def _types(path: Path, form: CsvForm) -> dict[str, pa.DataType]:
    """Return the type of each column that is no text."""
    possible: dict[str, list[pa.DataType]] = {}
    for batch in _batches(path, form):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            left = possible.setdefault(name, list(_TYPES))
            left[:] = [kind for kind in left if _can_be(column, kind, form)]
    return {name: left[0] for name, left in possible.items() if left}


def _can_be(column: pa.Array, kind: pa.DataType, form: CsvForm) -> bool:
    if _has(column, _CODE) or (kind == pa.float64() and _has(column, _LONG)):
        return False
    if form.decimal_comma and _has(column, r"\."):
        return False
    try:
        pc.cast(_numbers(column, form), kind)
    except pa.ArrowInvalid:
        return False
    return True


def _has(column: pa.Array, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(column, pattern)).as_py())


def _numbers(column: pa.Array, form: CsvForm) -> pa.Array:
    return pc.replace_substring(column, ",", ".") if form.decimal_comma else column


def _batches(path: Path, form: CsvForm) -> Iterator[pa.RecordBatch]:
    """Yield a file as text, null where a cell is missing."""
    reading = pa_csv.ReadOptions(block_size=_BLOCK_BYTES, encoding=form.encoding)
    delimiter = form.delimiter or _delimiter(path, form)
    parsing = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    with arrow_stream(path) as file, pa_csv.open_csv(file, reading, parsing) as reader:
        names = reader.schema.names
    check_names(names)
    converting = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    with arrow_stream(path) as file, pa_csv.open_csv(file, reading, parsing, converting) as reader:
        yield from reader


def _delimiter(path: Path, form: CsvForm) -> str:
    with opened(path) as file, TextIOWrapper(file, form.encoding, newline="\n") as text:
        names = text.readline(_FIRST_LINE)
    unquoted = "".join(names.split('"')[::2])
    return max(_DELIMITERS, key=unquoted.count)
