"""Legal holds: what they cover is not deleted, however old it is.

They stand in ``access/holds.json``; released ones stay in it. What deletes does so under the shared
lock, and a hold is added under the exclusive one: once ``add`` has returned, nothing that it
covers goes.
"""

import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from sidelight.logger._segments_folder import replace_file
from sidelight.service.errors import ConfigurationError, NotFound, OnHold

_FORMAT: Final = 1
_STRICT = ConfigDict(extra="forbid", frozen=True)

Span = tuple[int | None, int | None]
"""From (included) to (excluded), microseconds since 1970 UTC; None is open."""


class Hold(BaseModel):
    """One legal hold."""

    model_config = _STRICT

    id: str
    deployment: str
    from_us: int | None = None
    to_us: int | None = None
    reason: str
    by: str
    created: datetime
    released: datetime | None = None
    released_by: str = ""
    release_reason: str = ""

    @property
    def span(self) -> Span:
        """The times that it covers."""
        return self.from_us, self.to_us

    def covers(self, deployment: str, first_us: int, last_us: int) -> bool:
        """Whether it covers anything of a deployment between two times, both included."""
        return (
            self.released is None
            and deployment == self.deployment
            and (self.from_us is None or last_us >= self.from_us)
            and (self.to_us is None or first_us < self.to_us)
        )


class _File(BaseModel):
    model_config = _STRICT

    format: Literal[1] = _FORMAT
    holds: tuple[Hold, ...] = ()


class Holds:
    """The holds of a data folder, beside the running service.

    Parameters
    ----------
    data : Path
        The data folder.

    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._path = data / "access" / "holds.json"

    def list(self) -> tuple[Hold, ...]:
        """Return every hold, released ones too, the oldest first.

        Raises
        ------
        ConfigurationError
            When the file is not one of ours; then nothing may be deleted.

        """
        try:
            return _File.model_validate_json(self._path.read_bytes()).holds
        except FileNotFoundError:
            return ()
        except (OSError, ValidationError) as error:
            raise ConfigurationError(
                f"{self._path.name}: expected the legal holds, format {_FORMAT}, got something "
                "else; nothing is deleted until it is right",
                hint="restore the file from a backup",
            ) from error

    def add(
        self,
        deployment: str,
        *,
        reason: str,
        by: str,
        from_us: int | None = None,
        to_us: int | None = None,
    ) -> Hold:
        """Add a hold; when this returns nothing that it covers is deleted any more."""
        hold = Hold(
            id=f"hold-{secrets.token_hex(4)}",
            deployment=deployment,
            from_us=from_us,
            to_us=to_us,
            reason=reason,
            by=by,
            created=datetime.now(UTC),
        )
        with self._locked(fcntl.LOCK_EX):
            self._store((*self.list(), hold))
        return hold

    def release(self, hold_id: str, *, reason: str, by: str) -> Hold:
        """End a hold; it stays in the list. Raise ``NotFound`` unless it is active."""
        with self._locked(fcntl.LOCK_EX):
            holds = self.list()
            for number, hold in enumerate(holds):
                if hold.id == hold_id and hold.released is None:
                    released = hold.model_copy(
                        update={
                            "released": datetime.now(UTC),
                            "released_by": by,
                            "release_reason": reason,
                        }
                    )
                    self._store((*holds[:number], released, *holds[number + 1 :]))
                    return released
        raise NotFound(f"no active hold {hold_id}", hint="sidelight hold list shows them")

    @contextmanager
    def kept(self) -> Iterator[tuple[Hold, ...]]:
        """Give the active holds while something is deleted; none is added meanwhile."""
        with self._locked(fcntl.LOCK_SH):
            yield tuple(hold for hold in self.list() if hold.released is None)

    def _store(self, holds: Sequence[Hold]) -> None:
        content = _File(holds=tuple(holds)).model_dump_json(indent=1).encode()
        replace_file(self._path, content, scratch=self._path.parent)
        self._path.chmod(0o600)

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        lock = os.open(self._path.with_suffix(".lock"), flags, 0o600)
        try:
            fcntl.flock(lock, how)
            yield
        finally:
            os.close(lock)


def refuse_held(holds: Iterable[Hold], deployment: str, first_us: int, last_us: int) -> None:
    """Raise ``OnHold``, naming the hold, when one covers what is about to be deleted."""
    for hold in holds:
        if hold.covers(deployment, first_us, last_us):
            raise OnHold(
                f"{deployment}: on legal hold {hold.id} since {hold.created:%Y-%m-%d} by "
                f"{hold.by}: {hold.reason}",
                hint=f"sidelight hold release {hold.id} --reason ... ends it",
            )
