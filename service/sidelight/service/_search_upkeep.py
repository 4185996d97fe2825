"""What goes from the search server: rows past their retention, and what is erased."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sidelight.adapters import ElasticExpiry, StoreError
from sidelight.logger import Documents
from sidelight.service._deployments import deployment_names, get_settings
from sidelight.service._holds import Holds
from sidelight.service._retention_period import cutoff_us, pause_s
from sidelight.service._settings import Settings
from sidelight.service.errors import ConfigurationError

log = logging.getLogger(__name__)

SEARCH_ERASURES: Final = "search_erasures"
"""Collection of what to erase, ``deployment`` and the ``id`` of an inference or ``request_id``,
whose replies go; worked off and deleted."""

_PAGE: Final = 1_000
# Not all of a long past at once: rows that come wait meanwhile.
_MOST_PIECES: Final = 20
_LONGEST_PAUSE_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasures:
    """What is erased.

    Parameters
    ----------
    standing : frozenset of (deployment, inference id)
        No row of these is written.
    due : mapping of key to (deployment, inference id)
        Of these no row is waiting any more: what is there is deleted, and then they are done.
    replies : mapping of key to (deployment, request id)
        What other detectors answered to these is deleted as well.

    """

    standing: frozenset[tuple[str, str]] = frozenset()
    due: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    replies: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def done(self) -> list[str]:
        """Keys of what is worked off with this."""
        return [*self.due, *self.replies]

    def by_deployment(self) -> dict[str, tuple[list[str], list[str]]]:
        """Return the inferences and the requests to erase of each deployment."""
        found: dict[str, tuple[list[str], list[str]]] = {}
        for number, places in enumerate((self.due, self.replies)):
            for deployment, name in places.values():
                found.setdefault(deployment, ([], []))[number].append(name)
        return found


class SearchErasures:
    """Erasures that were asked for, each with the end of the journal when it was seen first.

    Parameters
    ----------
    documents : Documents

    """

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._ends: dict[str, int] = {}

    def next(self, *, position: int, end: int) -> Erasures:
        """Return what stands and what is due, where the stage is at ``position`` of ``end``."""
        found: dict[str, dict[str, tuple[str, str]]] = {"id": {}, "request_id": {}}
        for _, key, value in self._documents.find(SEARCH_ERASURES, descending=False, limit=_PAGE):
            name = "id" if "id" in value else "request_id"
            found[name][key] = str(value["deployment"]), str(value[name])
        inferences = found["id"]
        self._ends = {key: self._ends.get(key, end) for key in inferences}
        return Erasures(
            standing=frozenset(inferences.values()),
            due={key: place for key, place in inferences.items() if position >= self._ends[key]},
            replies=found["request_id"],
        )


class SearchRetention:
    """Deletes from the search server what is past its retention and on no legal hold.

    Parameters
    ----------
    documents : Documents
        The configuration of deployments.
    settings : Settings
    expiry : ElasticExpiry

    """

    def __init__(self, documents: Documents, settings: Settings, expiry: ElasticExpiry) -> None:
        self._documents = documents
        self._settings = settings
        self._expiry = expiry
        self._holds = Holds(settings.data)
        self._looked_ns = 0
        self._pause_s = 0.0

    def is_due(self, now_ns: int) -> bool:
        """Whether it is time to look; a clock that was set back makes nobody wait."""
        return not 0 <= now_ns - self._looked_ns < self._pause_s * 1e9

    def sweep(self, now_ns: int, deleted: Callable[[str, int], None]) -> bool:
        """Delete a bounded part of what is too old; tell how many rows of which deployment.

        Returns
        -------
        bool
            Whether the server did it; a server that is down is asked again by the next sweep.

        """
        self._looked_ns = now_ns
        self._pause_s = _LONGEST_PAUSE_S
        try:
            retentions = self._retentions()
            self._pause_s = pause_s(retentions.values())
            left = _MOST_PIECES
            for name, retention_s in retentions.items():
                left -= self._expire(name, cutoff_us(now_ns // 1000, retention_s), left, deleted)
        except (StoreError, ConfigurationError) as error:
            log.warning("old rows not deleted", extra={"reason": str(error)})
            return False
        if left <= 0:
            # There is more: soon again, when what came meanwhile is written.
            self._looked_ns = 0
        return True

    def close(self) -> None:
        """Close the connections."""
        self._expiry.close()

    def _expire(
        self, name: str, before_us: int, most: int, deleted: Callable[[str, int], None]
    ) -> int:
        for done in range(most):
            # No hold is added while something is deleted, and each piece is a short one.
            with self._holds.kept() as holds:
                kept = [hold.span for hold in holds if hold.deployment == name]
                number = self._expiry.expire(name, before_us=before_us, kept=kept)
            if not number:
                return done
            deleted(name, number)
        return most

    def _retentions(self) -> dict[str, float]:
        """Return the retention of each deployment that has one, in seconds."""
        names = set(deployment_names(self._documents))
        if self._settings.retention is not None:
            # Of a deployment that was deleted nothing else is known than its rows.
            names.update(self._expiry.deployments())
        given = {
            name: get_settings(self._documents, name).retention or self._settings.retention
            for name in sorted(names)
        }
        return {name: retention for name, retention in given.items() if retention is not None}
