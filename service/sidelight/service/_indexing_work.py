"""What the indexing stage hands to its thread, and what the thread needs of the server."""

import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sidelight.adapters import AlarmSpan, Joined
from sidelight.payloads import Batch
from sidelight.service._search_upkeep import Erasures


class DocumentStore(Protocol):
    """What the stage needs of the server; see ``ElasticStore``."""

    def write(self, batches: list[Batch], joined: Mapping[str, Joined]) -> Counter[Any]:
        """Store rows."""
        ...

    def label(
        self, deployment: str, labels: Mapping[tuple[str, int], Mapping[str, Any]]
    ) -> Counter[Any]:
        """Join labels to stored rows."""
        ...

    def alarm(self, value: Mapping[str, Any], span: AlarmSpan) -> Counter[Any]:
        """Store an alarm and mark its rows."""
        ...

    def forget_alarms(self, ids: Collection[str]) -> None:
        """Delete alarms."""
        ...

    def reply(self, replies: Iterable[Mapping[str, Any]]) -> Counter[Any]:
        """Store what other detectors answered."""
        ...

    def prepare(self) -> None:
        """Tell the server of our indices."""
        ...

    def erase(
        self, deployment: str, inference_ids: Collection[str], request_ids: Collection[str]
    ) -> int:
        """Delete all rows of some inferences, and what detectors answered to some requests."""
        ...

    def stop(self) -> None:
        """End what waits."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class Troubles:
    """Reasons that several threads note and one takes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._noted: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._noted)

    def add(self, reason: str) -> None:
        """Note one, from any thread."""
        with self._lock:
            self._noted[reason] += 1

    def take(self) -> Counter[str]:
        """Return what was noted since the last time."""
        with self._lock:
            taken, self._noted = self._noted, Counter()
        return taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One piece of work, and what is committed when it is done."""

    partition: int = 0
    first: int = 0
    last: int = -1
    payloads: list[bytes] = field(default_factory=list)
    changes: list[tuple[str, str]] = field(default_factory=list)
    replies: list[tuple[str, str]] = field(default_factory=list)
    alarms: list[dict[str, Any]] = field(default_factory=list)
    gone_alarms: list[str] = field(default_factory=list)
    spans: Mapping[str, list[AlarmSpan]] = field(default_factory=dict)
    erasures: Erasures = field(default_factory=Erasures)
    sweeps_at_ns: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        new = self.payloads or self.changes or self.replies or self.alarms
        gone = self.gone_alarms or self.erasures.done
        return not (new or gone) and self.sweeps_at_ns is None
