"""The records of one delivery, and what became of each."""

from typing import TYPE_CHECKING, Any, Final

from sidelight.adapters._sink_kafka_errors import PURGED, REFUSALS, SPENT, reason_of
from sidelight.logger import Delivery

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

_TAKEN: Final = "taken"
_UNKNOWN: Final = ""


class Flight:
    """Delivery reports of a sequence of events.

    Parameters
    ----------
    n_events : int

    Attributes
    ----------
    is_spent : bool
        Whether the producer is of no further use: a fatal error, or it remembers that the topic
        does not exist.

    """

    def __init__(self, n_events: int) -> None:
        self.is_spent = False
        self._outcomes = [_UNKNOWN] * n_events
        self._refused: list[int] = []

    def land(self, index: int) -> None:
        """Count an event as taken."""
        self._outcomes[index] = _TAKEN

    def fail(self, index: int, error: "KafkaError") -> None:
        """Note why an event was not taken."""
        name = error.name()
        if error.fatal() or name in SPENT:
            self.is_spent = True
        if name in PURGED:
            return
        if name in REFUSALS:
            self.refuse(index, reason_of(error))
        else:
            self._outcomes[index] = reason_of(error)

    def refuse(self, index: int, reason: str) -> None:
        """Note that an event can never be taken."""
        self._outcomes[index] = reason
        self._refused.append(index)

    def report(self, index: int, error: "KafkaError | None", _: Any) -> None:
        """Take a delivery report of librdkafka."""
        if error is None:
            self.land(index)
        else:
            self.fail(index, error)

    def landed(self) -> list[int]:
        """Return the numbers of what was taken."""
        return [index for index, outcome in enumerate(self._outcomes) if outcome is _TAKEN]

    def delivery(self, trouble: str) -> Delivery:
        """Return the answer of the sink.

        Parameters
        ----------
        trouble : str
            What is known about the connection, for records that were taken back.

        """
        n_taken = next(
            (index for index, outcome in enumerate(self._outcomes) if outcome is not _TAKEN),
            len(self._outcomes),
        )
        if n_taken == len(self._outcomes):
            return Delivery(n_taken=n_taken)
        n_refused = 0
        if n_taken in self._refused:
            # Brokers refuse whole batches of a partition; one alone is known to be the bad one.
            n_refused = max(self._refused) - n_taken + 1
        return Delivery(
            n_taken=n_taken,
            n_refused=n_refused,
            failure=self._outcomes[n_taken] or trouble or "timeout",
        )
