"""Reads a sealed segment: whose events it holds, and whether it still is what was written."""

import os
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from sidelight.adapters import Decoder
from sidelight.logger import EventLimits, identity, kind_of, parse
from sidelight.logger._checkpoint import SealedSegment
from sidelight.logger._sealed_marks import ERASED_TYPE
from sidelight.logger._segments import SegmentReader
from sidelight.logger._segments_format import (
    SEGMENT_HEADER_BYTES,
    BadBytes,
    chain_seed,
    checked_groups,
)
from sidelight.payloads import Event
from sidelight.service._label_values import instant, is_time
from sidelight.service._names import stored_name
from sidelight.service._segment_contents import SegmentContents

_RECORDS: Final = 64
_BYTES: Final = 1 << 20
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def scanned(
    data: Path, segment: SealedSegment, decoder: Decoder, limits: EventLimits
) -> Generator[None, None, SegmentContents]:
    """Read a segment piece by piece, so that whoever asks can do something else between them."""
    if not (yield from _is_as_sealed(data / "raw" / segment.name, segment)):
        return SegmentContents(spans={}, is_sound=False, has_unknown=True)
    spans: dict[str, tuple[int, int]] = {}
    has_unknown = False
    reader = SegmentReader(data)
    try:
        position = segment.first
        while position < segment.next_position:
            n_records = min(_RECORDS, segment.next_position - position)
            for record in reader.read(position, max_records=n_records, max_bytes=_BYTES):
                position = record.position + 1
                events, rejected = parse(record, limits)
                has_unknown |= bool(rejected)
                for event in events:
                    if event.type == ERASED_TYPE:
                        continue  # nobody's any more
                    names = _names(event, decoder)
                    has_unknown |= not names
                    for name in names:
                        _widen(spans, name, event)
            yield
    finally:
        reader.close()
    return SegmentContents(spans=spans, is_sound=True, has_unknown=has_unknown)


def _is_as_sealed(path: Path, segment: SealedSegment) -> Generator[None, None, bool]:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = chain_seed(file.read(SEGMENT_HEADER_BYTES))
            for group in checked_groups(file, seed=digest, first=segment.first, size=size):
                digest = group.digest
                yield
    except (BadBytes, FileNotFoundError):
        return False
    return size == segment.bytes and digest.hex() == segment.digest


def _names(event: Event, decoder: Decoder) -> set[str]:
    """Return whose an event is; feedback says it in its items."""
    if kind_of(event.type) != "feedback":
        return {identity(event).deployment}
    items, bad = decoder.labels(event)
    return set() if bad else {stored_name(item["deployment"]) for item in items}


def _widen(spans: dict[str, tuple[int, int]], name: str, event: Event) -> None:
    received_us = event.received_ns // 1000
    times = [received_us]
    if event.time and is_time(event.time):
        times.append((instant(event.time)[0] - _EPOCH) // timedelta(microseconds=1))
    first, last = spans.get(name, (received_us, received_us))
    spans[name] = (min(first, *times), max(last, *times))
