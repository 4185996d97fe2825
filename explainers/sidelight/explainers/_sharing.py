"""What all explanations of a process share: pool, pace, known answers and counters."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock

from sidelight.explainers._pacing import Limits, Pace
from sidelight.explainers._predicting import Target
from sidelight.explainers._remembering import RememberedAnswers


@dataclass(slots=True)
class Usage:
    """What one explanation has cost so far; calls and rows are those really sent."""

    model_calls: int = 0
    model_rows: int = 0
    unique_rows: int = 0
    cache_hits: int = 0


class SharedLoad:
    """The state behind a broker, safe for threads; see ``Broker`` for the parameters."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self.limits = limits
        self.clock = clock
        self.pace = Pace(limits.rows_per_second, clock)
        self.answers = RememberedAnswers(limits.cached_rows)
        self.pool = ThreadPoolExecutor(limits.calls_in_flight, "sidelight-model")
        self._served: dict[Target, str | None] = {}
        self._lock = Lock()
        self._total = Usage()

    @property
    def total(self) -> Usage:
        """What all explanations together have cost since the start."""
        with self._lock:
            return replace(self._total)

    def count_sent(self, usage: Usage, *, calls: int, rows: int) -> None:
        """Add what was sent to one account and to the total."""
        with self._lock:
            for account in (usage, self._total):
                account.model_calls += calls
                account.model_rows += rows

    def count_asked(self, usage: Usage, *, unique: int, hits: int) -> None:
        """Add what was asked to one account and to the total."""
        with self._lock:
            for account in (usage, self._total):
                account.unique_rows += unique
                account.cache_hits += hits

    def served_version(self, target: Target) -> str | None:
        """Return the version that answered last; the one of the target before any answer."""
        with self._lock:
            return self._served.get(target, target.version)

    def note_version(self, target: Target, version: str | None) -> None:
        """Keep which version answered.

        Known answers are filed under the version that gave them; when another one answers,
        theirs are not found any more and age out.
        """
        with self._lock:
            self._served[target] = version
