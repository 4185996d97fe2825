"""What the processes of ``serve`` tell each other through files: sockets, marks, the address."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder ``run/`` of the data folder; nothing in it outlives a restart."""

    data: Path

    @property
    def path(self) -> Path:
        """The folder itself."""
        return self.data / "run"

    @property
    def api_socket(self) -> Path:
        """Where the API listens; the door passes on to it."""
        return self.path / "api.sock"

    @property
    def ingest_socket(self) -> Path:
        """Where the door listens for the API."""
        return self.path / "ingest.sock"

    @property
    def _mark(self) -> Path:
        return self.path / "consumer.alive"

    def create(self) -> None:
        """Make the folder, readable by nobody else; forget that a former consumer was alive."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._mark.unlink(missing_ok=True)

    def mark_consumer(self) -> None:
        """Say that the consumer is alive."""
        self._mark.touch()
        os.utime(self._mark)

    def consumer_age_s(self, now_s: float) -> float | None:
        """Return the seconds since the consumer last said that it is alive."""
        try:
            return now_s - self._mark.stat().st_mtime
        except FileNotFoundError:
            return None
