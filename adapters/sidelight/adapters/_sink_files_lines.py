"""Files of JSON lines: on each one event in the JSON format of CloudEvents."""

import gzip
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

from sidelight.logger import CapturedEvent

_CHUNK_BYTES: Final = 1 << 20
_LEVEL: Final = 4


def write_lines(events: Iterable[CapturedEvent], file: BinaryIO) -> None:
    """Write events; valid JSON stands verbatim unless it has several lines."""
    file.writelines(_chunks(events))


def write_zipped_lines(events: Iterable[CapturedEvent], file: BinaryIO) -> None:
    """Write events, compressed; the same events give the same bytes."""
    with gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as archive:
        for chunk in _chunks(events):
            archive.write(chunk)


def line(event: CapturedEvent) -> bytes:
    r"""Return the line of an event, with its end.

    Examples
    --------
    >>> line(CapturedEvent(b'{"id":"1"', b"[1,\n2]", True))
    b'{"id":"1","data_base64":"WzEsCjJd"}\n'

    """
    if event.is_embedded and (b"\n" in event.data or b"\r" in event.data):
        # Line breaks between values are legal JSON; only base64 keeps them on one line.
        event = CapturedEvent(event.attributes, event.data)
    return event.member() + b"\n"


def _chunks(events: Iterable[CapturedEvent]) -> Iterator[bytes]:
    lines: list[bytes] = []
    n_bytes = 0
    for event in events:
        lines.append(line(event))
        n_bytes += len(lines[-1])
        if n_bytes >= _CHUNK_BYTES:
            yield b"".join(lines)
            lines.clear()
            n_bytes = 0
    if lines:
        yield b"".join(lines)
