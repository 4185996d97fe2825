"""Whether each sealed event can be read, or an erasure says why it cannot."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sidelight.logger._journal import EventRecord
from sidelight.logger._key_reader import KeyReader
from sidelight.logger._key_ring import KeyRing
from sidelight.logger._key_slots import NEVER_KEPT
from sidelight.logger._sealed_body import FRAME, SealedBody, SealedBodyError, SealedPart
from sidelight.logger._sealed_erasure import tombstone_keys
from sidelight.logger._sealed_marks import is_sealed
from sidelight.logger._sealed_records import are_apart
from sidelight.logger._segments import SegmentReader
from sidelight.logger._segments_folder import may_hold_sealed
from sidelight.logger.errors import JournalDamaged, SealingKeyError

_MAX_RECORDS = 4096
_MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedReport:
    """What a check of sealed events found.

    Parameters
    ----------
    sealed : int
        Events that are sealed, erased ones included.
    erased : int
        Those that an erasure destroyed.
    unchecked : str
        Why it could not be looked whether they open; empty when it was.
    findings : tuple of str
        Events that cannot be read though no erasure says so.

    """

    sealed: int = 0
    erased: int = 0
    unchecked: str = ""
    findings: tuple[str, ...] = ()


def verify_sealed(data: Path) -> SealedReport:
    """Look for the keys of every sealed event of an archive; change nothing.

    That the stored bytes are what was written is for ``verify`` to say.
    """
    if not may_hold_sealed(data):
        return SealedReport()
    return _Check(data).report()


class _Check:
    def __init__(self, data: Path) -> None:
        self._data = data
        self._keys = KeyReader(data)
        self._digest_key = b""
        self._unchecked = ""
        self._sealed = self._erased = 0
        self._findings: list[str] = []
        # Keys that are gone: what they opened, until an erasure names them.
        self._gone: dict[int, tuple[int, int]] = {}
        self._named: set[int] = set()

    def report(self) -> SealedReport:
        try:
            self._open_ring()
            for record in _records(self._data):
                self._check(record)
        finally:
            self._keys.close()
        lost = {place for number, place in self._gone.items() if number not in self._named}
        explained = {place for number, place in self._gone.items() if number in self._named}
        for position, number in sorted(lost - explained):
            self._findings.append(
                f"raw: record {position}{_member(number)}: its key is gone and no erasure says so"
            )
        self._erased += len([place for place in explained if place[1] != FRAME])
        return SealedReport(
            sealed=self._sealed,
            erased=self._erased,
            unchecked=self._unchecked,
            findings=tuple(self._findings),
        )

    def _open_ring(self) -> None:
        keyring = KeyRing(self._data)
        try:
            ring = keyring.load()
        except SealingKeyError as error:
            self._unchecked = str(error)
            return
        if ring is not None:
            self._digest_key = ring.digest_key
            self._keys.refresh()
        elif are_apart(self._data):
            self._unchecked = "the keys are kept apart from this copy"
        else:
            self._unchecked = "keys/ is missing"
            self._findings.append("keys: is missing, with what opens the sealed events")

    def _check(self, record: EventRecord) -> None:
        if not is_sealed(record.body):
            self._named |= tombstone_keys(record.head, record.body, self._digest_key) or set()
            return
        try:
            sealed = SealedBody.decode(record.body)
        except SealedBodyError as error:
            self._findings.append(f"raw: record {record.position}: {error}")
            return
        for order, part in enumerate(sealed.parts):
            self._sealed += part.number != FRAME
            if not self._unchecked:
                self._check_part(record.position, part, order=order, is_batch=sealed.is_batch)

    def _check_part(self, position: int, part: SealedPart, *, order: int, is_batch: bool) -> None:
        place = position, part.number
        keys = self._keys.find(part.keys)
        if keys is None and NEVER_KEPT in part.keys:
            self._erased += part.number != FRAME
        elif keys is None:
            gone = [number for number in part.keys if not self._keys.has(number)]
            self._gone.update(dict.fromkeys(gone, place))
        else:
            try:
                part.opened(keys, order=order, is_batch=is_batch)
            except SealedBodyError as error:
                self._findings.append(f"raw: record {position}{_member(part.number)}: {error}")


def _member(number: int) -> str:
    return " its frame" if number == FRAME else f" member {number}"


def _records(data: Path) -> Iterator[EventRecord]:
    """Yield what can be read of an archive, as it is stored."""
    reader = SegmentReader(data, opens=False)
    try:
        position = reader.begin()
        while position < reader.end():
            try:
                found = reader.read(position, max_records=_MAX_RECORDS, max_bytes=_MAX_BYTES)
            except JournalDamaged:
                position = reader.retired_until(position) or reader.skip(position)
                continue
            if not found:
                return
            yield from found
            position = found[-1].position + 1
    finally:
        reader.close()
