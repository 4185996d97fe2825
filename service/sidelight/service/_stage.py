"""What the stages of the consumers have in common."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Protocol

from sidelight.service._metrics import Labels

DECODING = "decoding"
STORING = "storing"
DETECTION = "detection"
INDEXING = "indexing"
RETENTION = "retention"
ERASING = "erasing"

LABEL_CHANGES = "label_changes"
"""Collection of the labels that are not yet in the search server; worked off and deleted."""


class Stage(Protocol):
    """One consumer group: takes what is new, and commits what came of it."""

    @property
    def name(self) -> str:
        """The group's name."""
        ...

    def step(self, now_ns: int) -> bool:
        """Do what can be done now; return whether something was done.

        ``JournalError`` means that nothing was committed: ``reset`` and try again.
        """
        ...

    def reset(self) -> None:
        """Forget everything that is not committed."""
        ...


class Counts(defaultdict[tuple[str, Labels], float]):
    """Increments of counters, to be committed with the work that they count."""

    def __init__(self) -> None:
        super().__init__(float)

    def add(self, name: str, labels: Labels, value: float = 1) -> None:
        """Increment one counter; nothing is written for zero."""
        if value:
            self[name, labels] += value

    def add_each(self, name: str, values: Mapping[Labels, float]) -> None:
        """Increment one counter for several labels."""
        for labels, value in values.items():
            self.add(name, labels, value)


REPLY_CHANGES = "reply_changes"
"""Collection of other detectors' answers that are not yet in the search server; as above."""

REFERENCE_ERASURES = "reference_erasures"
"""Collection of what erasing asks of references; worked off beside detection and deleted."""

OBSOLETE_REFERENCES = "obsolete_references"
"""Collection of former references, by digest, until their files are deleted."""
