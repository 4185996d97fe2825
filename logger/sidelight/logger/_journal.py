"""The two journals and the results, behind one interface of atomic commits.

``events`` holds what arrived, ``inferences`` what it means. A consumer belongs to a group; what
one step of its work changes moves together or not at all: its positions, its state, what it
appends to the ``inferences`` journal, and the documents that it publishes. The embedded engine
does that in one SQLite transaction, Kafka in one producer transaction.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, Protocol, TypeVar

import msgspec

from sidelight.payloads import RawRef

RecordT = TypeVar("RecordT")

JournalName = Literal["events", "inferences"]

REMEMBERED_BYTES: Final = 24
"""Length of what is remembered of an identity."""

Positions = Mapping[int, int]
"""Partition -> the next position to read."""


class EventRecord(msgspec.Struct, frozen=True, gc=False):
    """One record of the ``events`` journal: a request to the door, byte for byte.

    There are tens of thousands a second: it is made in a fifth of a dataclass's time, and the
    garbage collector passes it by.

    Parameters
    ----------
    partition, position : int
        Its place.
    received_ns : int
        Receive time, nanoseconds since 1970 UTC; never decreases within a partition.
    head : bytes
        Request line and headers as they came, up to and including the blank line.
    body : bytes
        The body, without transfer coding; a batch is one record.

    """

    partition: int
    position: int
    received_ns: int
    head: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One record of the ``inferences`` journal; ``key`` is a deployment.

    ``payload`` is the Arrow IPC stream of one ``Batch`` (topic ``rows``, so far the only one).
    """

    partition: int
    position: int
    topic: str
    key: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Slice(Generic[RecordT]):
    """Consecutive records of one partition; ``first`` and ``last`` are both included."""

    partition: int
    first: int
    last: int
    records: Sequence[RecordT]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A published result, found again by collection and key; ``value`` None deletes it.

    Collections: ``verdicts, alarms, labels, replies, explanations, deployments, references,
    quarantine, lake_files, counters, acknowledgements``.

    Parameters
    ----------
    deployment : str
        ``namespace/name`` or empty.
    order : str
        What lists are sorted by, usually an RFC 3339 time; compared as text.
    value : mapping or None
        JSON object.

    """

    collection: str
    key: str
    deployment: str = ""
    order: str = ""
    value: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What one step of a consumer changes, together or not at all.

    Parameters
    ----------
    journal : "events" or "inferences"
        The journal that the positions belong to.
    state : mapping of bytes to bytes or None
        Changed keys of the group's state; None deletes a key.
    remembered : mapping of bytes to bytes
        Digests of 16 bytes, evenly spread as hashes are, and 24 bytes about each. They are kept for
        ever; a newer value takes the place of an older one.
    appended : sequence of (topic, key, payload)
        Records for the ``inferences`` journal.
    documents : sequence of Document
        Published results, written or deleted by their key.
    counters : mapping of (name, labels as sorted pairs) to float
        Increments of persistent counters, so that a metric never counts work twice.
    erase : bool, default False
        Whether nothing of the deleted documents, and of records that every group has passed, may be
        left on the disk.

    """

    group: str
    journal: JournalName
    positions: Positions = field(default_factory=dict)
    state: Mapping[bytes, bytes | None] = field(default_factory=dict)
    remembered: Mapping[bytes, bytes] = field(default_factory=dict)
    appended: Sequence[tuple[str, str, bytes]] = ()
    documents: Sequence[Document] = ()
    counters: Mapping[tuple[str, tuple[tuple[str, str], ...]], float] = field(default_factory=dict)
    erase: bool = False


class Journals(Protocol):
    """What consumers need of an engine. One process holds it for writing."""

    def read_events(
        self, group: str, *, max_records: int, max_bytes: int
    ) -> list[Slice[EventRecord]]:
        """Return durable records from the group's position on, without moving it; maybe none."""
        ...

    def read_inferences(
        self, group: str, *, max_records: int, max_bytes: int
    ) -> list[Slice[BatchRecord]]:
        """Return committed records from the group's position on, without moving it; maybe none."""
        ...

    def event(self, ref: RawRef) -> EventRecord | None:
        """Return the record that holds one event, or None when the archive has it no more."""
        ...

    def state(self, group: str, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return the committed values of those keys that exist."""
        ...

    def remembered(self, group: str, digests: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return what is remembered of those that are known; ask once for thousands."""
        ...

    def scan(self, group: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the committed keys that begin with ``prefix``, in order."""
        ...

    def positions(self, group: str, journal: JournalName) -> dict[int, int]:
        """Return the group's committed positions; a partition never read is missing."""
        ...

    def ends(self, journal: JournalName) -> dict[int, int]:
        """Return the next position to be written, by partition: ``ends - positions`` is the lag."""
        ...

    def commit(self, commit: Commit) -> None:
        """Make one step durable, all of it or nothing; ``JournalError`` means nothing."""
        ...


class Documents(Protocol):
    """What the API needs of an engine: published results, and a few writes of its own."""

    def get(self, collection: str, key: str) -> dict[str, Any] | None:
        """Return one document's value."""
        ...

    def present(self, collection: str, keys: Collection[str]) -> set[str]:
        """Return which of some keys have a document."""
        ...

    def find(
        self,
        collection: str,
        *,
        deployment: str | None = None,
        descending: bool = True,
        after: tuple[str, str] | None = None,
        limit: int = 100,
    ) -> list[tuple[str, str, dict[str, Any]]]:
        """Return (order, key, value) sorted by (order, key), from behind ``after`` on."""
        ...

    def put(self, documents: Sequence[Document]) -> None:
        """Write documents in one transaction of their own."""
        ...

    def counters(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Return every persistent counter."""
        ...
