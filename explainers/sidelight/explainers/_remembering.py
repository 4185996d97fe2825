"""Answers of live models, remembered across explanations."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from threading import Lock


class RememberedAnswers:
    """The answers used last, by digest of the row; safe for threads.

    Parameters
    ----------
    capacity : int
        Answers kept; the one not used for longest goes first.

    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._answers: OrderedDict[bytes, float] = OrderedDict()
        self._lock = Lock()

    def recall(self, digests: Sequence[bytes]) -> list[float | None]:
        """Return the answer to each row, None where it is not known."""
        found = []
        with self._lock:
            for digest in digests:
                answer = self._answers.get(digest)
                if answer is not None:
                    self._answers.move_to_end(digest)
                found.append(answer)
        return found

    def remember(self, answers: Iterable[tuple[bytes, float]]) -> None:
        """Keep answers, and forget the oldest beyond the capacity."""
        with self._lock:
            self._answers.update(answers)
            while len(self._answers) > self._capacity:
                self._answers.popitem(last=False)

    def __len__(self) -> int:
        return len(self._answers)
