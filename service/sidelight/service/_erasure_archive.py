"""The archive's part of an erasure: keys go, a tombstone says so, plain bytes are named.

Of what was stored before the deployment was sealed nothing can be taken out of a chain: its
segments are named, with the time from which retention may delete them.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sidelight.logger import EventLimits, EventRecord, parse
from sidelight.logger._checkpoint import Checkpoint
from sidelight.logger._key_eraser import KeyEraser
from sidelight.logger._key_reader import KeyReader
from sidelight.logger._key_ring import KeyRing
from sidelight.logger._key_slots import request_digest
from sidelight.logger._sealed_body import SealedBody, SealedBodyError
from sidelight.logger._sealed_erasure import tombstones
from sidelight.logger._sealed_marks import is_sealed
from sidelight.logger._sealed_since import sealed_since
from sidelight.logger._sealing import SealingSettings
from sidelight.logger._sealing_requests import requests_of
from sidelight.logger._segments import SegmentReader
from sidelight.logger._segments_format import segment_name, segment_paths
from sidelight.logger.errors import JournalDamaged
from sidelight.payloads import RawRef

Append = Callable[[bytes, bytes], None]
"""Has the archive keep one request, durably."""

_RECORDS: Final = 256
_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """What is written down of an erasure, in the archive and in its document."""

    id: str
    deployment: str
    by: str
    reason: str
    time: str


class ErasureArchive:
    """The archive of a data folder, as far as erasures are concerned.

    Parameters
    ----------
    data : Path
        The data folder.
    append : callable
        Has the archive keep a tombstone.
    limits : EventLimits
        The consumer's own.
    raw_retention_s : float, optional
        How long segments are kept at least; for ever when absent.

    """

    def __init__(
        self,
        data: Path,
        append: Append,
        *,
        limits: EventLimits,
        raw_retention_s: float | None = None,
    ) -> None:
        self._data = data
        self._append = append
        self._limits = limits
        self._raw_retention_s = raw_retention_s

    def check(self) -> None:
        """Raise ``SealingKeyError`` when the keys cannot be opened."""
        KeyRing(self._data).load()

    def destroy(
        self,
        sentence: Sentence,
        request_ids: Collection[str],
        refs: Collection[str],
        *,
        is_told: bool = False,
    ) -> int:
        """Destroy the keys of requests; return how many were left of them.

        No event of these requests gets a key from now on. The tombstone is durable before the
        first key is gone. With ``is_told``, since it was done before, there is none for no key.

        Raises
        ------
        JournalError, OSError
            When the keys cannot be opened, or the disk or the door refuses.

        """
        ring = KeyRing(self._data).load()
        if ring is None:
            return 0
        eraser = KeyEraser(self._data)
        digests = {request_digest(ring.digest_key, sentence.deployment, of) for of in request_ids}
        numbers = set(eraser.close_requests(digests)) if digests else set()
        # Events without an id have got theirs from their place, behind the door.
        numbers |= self._keys_at(ref for ref in refs if digests)
        if is_told and not numbers:
            return 0
        for stone in tombstones(
            sorted(numbers),
            erasure=sentence.id,
            deployment=sentence.deployment,
            by=sentence.by,
            reason=sentence.reason,
            time=sentence.time,
        ):
            self._append(*stone.request(ring.digest_key))
        if numbers:
            eraser.destroy(numbers)
        return len(numbers)

    def erased_refs(
        self, deployment: str, request_ids: Collection[str], refs: Collection[str]
    ) -> Iterator[str | None]:
        """Yield which of these events are of these requests, or cannot be opened any more.

        None stands for a pause, in which something else can be done.
        """
        wanted = {(deployment, request_id) for request_id in request_ids}
        keys = KeyReader(self._data)
        reader = SegmentReader(self._data, opens=False)
        try:
            for number, text in enumerate(refs):
                if number % _RECORDS == 0:
                    yield None
                ref = RawRef.parse(text)
                try:
                    record = reader.record(ref.position)
                    if record is not None and self._is_erased(record, ref, keys, wanted):
                        yield text
                except (JournalDamaged, SealedBodyError):
                    continue
        finally:
            reader.close()
            keys.close()

    def _is_erased(
        self, record: EventRecord, ref: RawRef, keys: KeyReader, wanted: set[tuple[str, str]]
    ) -> bool:
        if is_sealed(record.body):
            parts = SealedBody.decode(record.body).parts
            of_event = [part for part in parts if part.number == ref.index]
            return any(keys.find(part.keys) is None for part in of_event)
        events = parse(record, self._limits)[0]
        named = [requests_of(event) for event in events if event.ref.index == ref.index]
        return not all(wanted.isdisjoint(requests) for requests in named)

    def plain_segments(
        self, deployment: str, request_ids: Collection[str]
    ) -> Iterator[Mapping[str, str] | None]:
        """Look for events of these requests that are not sealed; yield their segments.

        None stands for a pause, in which something else can be done.
        """
        until = self._sealed_since(deployment)
        wanted = {(deployment, request_id) for request_id in request_ids}
        found: set[int] = set()
        reader = SegmentReader(self._data, opens=False)
        try:
            position = reader.begin()
            end = reader.end() if until is None else min(reader.end(), until)
            while position < end:
                try:
                    records = reader.read(position, max_records=_RECORDS, max_bytes=_BYTES)
                except JournalDamaged:
                    position = reader.retired_until(position) or reader.skip(position)
                    continue
                if not records:
                    break
                for record in records:
                    if is_sealed(record.body):
                        continue
                    for event in parse(record, self._limits)[0]:
                        if not wanted.isdisjoint(requests_of(event)):
                            found.add(record.position)
                position = records[-1].position + 1
                yield None
        finally:
            reader.close()
        yield from self._named(found)

    def _sealed_since(self, deployment: str) -> int | None:
        """Return the position from which on a deployment is sealed; None when it is not."""
        covering = [
            position
            for name, position in sealed_since(self._data).items()
            if SealingSettings(deployments=(name,)).covers(deployment)
        ]
        return min(covering, default=None)

    def _keys_at(self, refs: Iterator[str]) -> set[int]:
        """Return the numbers of the keys that are left of events at some places."""
        numbers: set[int] = set()
        keys = KeyReader(self._data)
        reader = SegmentReader(self._data, opens=False)
        try:
            for ref in map(RawRef.parse, refs):
                try:
                    record = reader.record(ref.position)
                    if record is None or not is_sealed(record.body):
                        continue
                    parts = SealedBody.decode(record.body).parts
                except (JournalDamaged, SealedBodyError):
                    continue
                numbers.update(
                    number
                    for part in parts
                    if part.number == ref.index
                    for number in part.keys
                    if keys.has(number)
                )
        finally:
            reader.close()
            keys.close()
        return numbers

    def _named(self, positions: Collection[int]) -> Iterator[Mapping[str, str]]:
        firsts = [first for first, _ in segment_paths(self._data / "raw")]
        checkpoint = Checkpoint.load(self._data) or Checkpoint()
        times = {segment.name: segment.time_ns for segment in checkpoint.segments}
        names = {
            segment_name(firsts[index])
            for position in positions
            if (index := bisect_right(firsts, position) - 1) >= 0
        }
        for name in sorted(names):
            yield {"segment": f"raw/{name}", "until": self._until(times.get(name))}

    def _until(self, time_ns: int | None) -> str:
        if self._raw_retention_s is None:
            return "for ever: audit.raw_retention is not set"
        if time_ns is None:
            return f"at least {self._raw_retention_s / 86400:g} days after its last event"
        gone = datetime.fromtimestamp(time_ns / 1e9 + self._raw_retention_s, UTC)
        return f"at least {gone:%Y-%m-%dT%H:%M:%SZ}"
