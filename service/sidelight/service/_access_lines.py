"""The files of the access log as a chain of lines: where it ends, and whether it holds a place."""

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from sidelight.logger import LogHead

START: Final = "0" * 64
"""What the first line holds as the digest of the one before it."""

_NAME: Final = re.compile(r"log-\d{4}-\d{2}\.jsonl")
_TAIL_BYTES: Final = 1 << 16
_CHUNK_BYTES: Final = 1 << 20


def missing_from(folder: Path, signed: LogHead) -> str | None:
    """Return what is wrong when a log does not hold what was signed."""
    if not signed.entries:
        return None
    name, upto = f"access/{signed.file}", f"entries up to number {signed.entries} were signed"
    try:
        with (folder / signed.file).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size < signed.bytes:
                return f"{name}: was cut at byte {size} of {signed.bytes}; {upto}"
            _, tail = tail_of(file, signed.bytes)
    except FileNotFoundError:
        return f"{name}: is missing; {upto}"
    if not tail.endswith(b"\n") or digest_of(tail[:-1].rpartition(b"\n")[2]) != signed.digest:
        return f"{name}: is not what was signed; {upto}"
    return None


def end_of(folder: Path) -> LogHead:
    """Return where the last whole line ends; entries are not counted."""
    for path in reversed(paths_of(folder)):
        with path.open("rb") as file:
            start, tail = tail_of(file)
        whole = tail[: tail.rfind(b"\n") + 1]
        if whole:
            digest = digest_of(whole[:-1].rpartition(b"\n")[2])
            return LogHead(file=path.name, bytes=start + len(whole), digest=digest)
    return LogHead()


def lines_between(folder: Path, former: LogHead, head: LogHead) -> int:
    """Return the lines behind one place of a log up to another."""
    entries = 0
    for path in paths_of(folder):
        if former.file <= path.name <= head.file:
            with path.open("rb") as file:
                file.seek(former.bytes if path.name == former.file else 0)
                left = (head.bytes if path.name == head.file else sys.maxsize) - file.tell()
                while left > 0 and (chunk := file.read(min(left, _CHUNK_BYTES))):
                    entries += chunk.count(b"\n")
                    left -= len(chunk)
    return entries


def tail_of(file: BinaryIO, size: int | None = None) -> tuple[int, bytes]:
    """Return the end of the first bytes of a log, and where it begins.

    The last whole line is in it.
    """
    if size is None:
        size = file.seek(0, os.SEEK_END)
    length = _TAIL_BYTES
    while True:
        start = max(0, size - length)
        file.seek(start)
        tail = file.read(size - start)
        # One line end closes the last whole line, another one is before it.
        if start == 0 or tail.count(b"\n") > 1:
            return start, tail
        length *= 4


def lines_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            # A torn one was never answered; the next entry takes its place.
            if line.endswith(b"\n"):
                yield line[:-1]


def paths_of(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def digest_of(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
