"""How far the erasure that is worked on has come, for whoever waits for it: a file in ``run/``."""

import logging
import os
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import orjson

log = logging.getLogger(__name__)

_FILE: Final = "erasing.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureProgress:
    """What is known of an erasure that is not done.

    Parameters
    ----------
    id : str
        Of the erasure.
    since : str
        When it was ordered.
    waits_for : str
        What it waits for now; empty while it works.
    failed_tries : int
        How often it failed since the consumer was started.
    last_error, hint : str
        Why it failed last, and what to do.
    failed_at, next_try : str
        When that was, and when it is tried again.

    """

    id: str
    since: str
    waits_for: str = ""
    failed_tries: int = 0
    last_error: str = ""
    hint: str = ""
    failed_at: str = ""
    next_try: str = ""

    @property
    def since_s(self) -> float:
        """When it was ordered, in seconds since 1970."""
        return datetime.fromisoformat(self.since).timestamp()


class ErasureProgressFile:
    """The progress of the one erasure that a consumer works on.

    Parameters
    ----------
    data : Path
        The data folder.

    """

    def __init__(self, data: Path) -> None:
        self._path = data / "run" / _FILE
        self._now: ErasureProgress | None = None
        self._written: ErasureProgress | None = None

    def begin(self, erasure_id: str, since: str) -> None:
        """Begin an erasure, or try one again: what is known of former tries is kept."""
        if self._now is None or self._now.id != erasure_id:
            self._now = ErasureProgress(id=erasure_id, since=since)
        self.wait_for("")

    def wait_for(self, what: str) -> None:
        """Note what it waits for; nothing is told before ``keep``."""
        if self._now is not None:
            self._now = replace(self._now, waits_for=what)

    def failed(self, error: str, hint: str, *, now_ns: int, next_ns: int) -> None:
        """Note why it failed, and when it is tried again."""
        if self._now is not None:
            self._now = replace(
                self._now,
                waits_for="",
                failed_tries=self._now.failed_tries + 1,
                last_error=error,
                hint=hint,
                failed_at=moment(now_ns),
                next_try=moment(next_ns),
            )
            self.keep()

    def done(self) -> None:
        """Forget it."""
        self._now = None
        self.keep()

    def forget(self) -> None:
        """Delete what a consumer that is gone has told."""
        self._path.unlink(missing_ok=True)

    def keep(self) -> None:
        """Tell the others, if anything has changed."""
        if self._now == self._written:
            return
        try:
            if self._now is None:
                self.forget()
            else:
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
                temporary.write_bytes(orjson.dumps(asdict(self._now)))
                temporary.replace(self._path)
        except OSError as error:
            # A full disk costs what is told of the erasure, not the erasure.
            log.warning("progress of an erasure not told", extra={"reason": str(error)})
        self._written = self._now

    def read(self) -> ErasureProgress | None:
        """Return what the consumer tells; None when it works on nothing."""
        try:
            return ErasureProgress(**orjson.loads(self._path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None


def moment(ns: int) -> str:
    """Return a time as it is written, to the millisecond."""
    return written(datetime.fromtimestamp(ns / 1e9, UTC))


def written(time: datetime) -> str:
    """Return a time of UTC as erasures write it.

    Examples
    --------
    >>> written(datetime(2026, 3, 1, 12, tzinfo=UTC))
    '2026-03-01T12:00:00.000Z'

    """
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
