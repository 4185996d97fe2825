"""The formats of an export as HTTP and the command line name them."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from sidelight.adapters import ExportFormat
from sidelight.service.errors import NotAcceptable

MEDIA_TYPES: Final[Mapping[ExportFormat, str]] = {
    "jsonl": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8; header=present",
    "parquet": "application/vnd.apache.parquet",
}

# From the most exact to the least.
_RANGES: Final[Mapping[ExportFormat, tuple[frozenset[str], ...]]] = {
    "jsonl": (
        frozenset(
            {
                *("application/x-ndjson", "application/ndjson", "application/json"),
                *("application/jsonl", "application/jsonlines", "application/x-jsonlines"),
            }
        ),
        frozenset({"application/*"}),
        frozenset({"*/*"}),
    ),
    "csv": (
        frozenset({"text/csv", "application/csv"}),
        frozenset({"text/*"}),
        frozenset({"*/*"}),
    ),
    "parquet": (
        frozenset(
            {"application/vnd.apache.parquet", "application/parquet", "application/x-parquet"}
        ),
        frozenset({"application/*"}),
        frozenset({"*/*"}),
    ),
}
_WEIGHT: Final = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_NAME: Final = 100


def format_of(accept: str) -> ExportFormat:
    """Return the format that a header ``Accept`` prefers (RFC 9110, section 12.5.1).

    Raises
    ------
    NotAcceptable
        If it accepts none.

    Examples
    --------
    >>> format_of("text/csv;q=0.5, application/vnd.apache.parquet"), format_of("")
    ('parquet', 'jsonl')

    """
    if not accept.strip():
        return "jsonl"
    wishes = [_wish(item) for item in accept.split(",")]
    best = max(MEDIA_TYPES, key=lambda name: _preference(name, wishes))
    if not _preference(best, wishes)[0]:
        raise NotAcceptable(
            "no format that is accepted",
            expected=", ".join(kind.partition(";")[0] for kind in MEDIA_TYPES.values()),
            got=accept[:200],
            hint="format=parquet, csv or jsonl",
        )
    return best


def file_name(deployment: str | None, chosen: ExportFormat) -> str:
    """Return a name that every file system takes.

    Examples
    --------
    >>> file_name("prod/flights", "csv"), file_name(None, "parquet")
    ('inferences-prod-flights.csv', 'inferences.parquet')

    """
    parts = ["inferences", *([deployment] if deployment else [])]
    stem = _UNSAFE.sub("-", "-".join(parts)).strip("-.")[:_MAX_NAME]
    return f"{stem}.{chosen}"


def _preference(name: ExportFormat, wishes: Sequence[tuple[str, float]]) -> tuple[float, int, int]:
    """Return how much a format is wanted: its weight, how exactly it is named, and how early."""
    for generality, names in enumerate(_RANGES[name]):
        for place, (wanted, weight) in enumerate(wishes):
            if wanted in names:
                return weight, -generality, -place
    return 0.0, 0, 0


def _wish(item: str) -> tuple[str, float]:
    name, *parameters = (part.strip().lower() for part in item.split(";"))
    weights = [part for part in parameters if part.startswith("q=")]
    if not weights:
        return name, 1.0
    match = _WEIGHT.fullmatch(weights[0])
    return name, float(match[1]) if match else 0.0
