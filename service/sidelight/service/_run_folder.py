"""What the processes of ``serve`` tell each other through files: sockets, marks, the address."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from sidelight.service.errors import ConfigurationError

log = logging.getLogger(__name__)

# Of sun_path, without the zero at its end (unix(7)).
_MAX_SOCKET_PATH = 107
CONSUMER = "consumer"
_MARKED = (CONSUMER, "detection")


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

    def create(self) -> None:
        """Make the folder, readable by nobody else.

        Raises
        ------
        ConfigurationError
            If the folder cannot be made, or its path is too long for the sockets in it.

        """
        length = len(os.fsencode(self.data))
        longest = _MAX_SOCKET_PATH - len(os.fsencode(self.ingest_socket)) + length
        if length > longest:
            raise ConfigurationError(
                f"data: expected a path of at most {longest} bytes, got {length}: {self.data}",
                hint="sockets are in it, whose paths are short; name a shorter one or a link to it",
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigurationError(
                f"data: expected a folder to write into, got {self.data}: {error.strerror}"
            ) from error

    def forget(self) -> None:
        """Forget who was alive before; for the one service that works on the folder."""
        for role in _MARKED:
            self._mark(role).unlink(missing_ok=True)

    def mark(self, role: str) -> None:
        """Say that a process is alive: ``consumer`` or ``detection``."""
        try:
            self._mark(role).touch()
            os.utime(self._mark(role))
        except OSError as error:
            # A full disk costs the sign, not the process.
            log.warning("not marked as alive", extra={"role": role, "reason": str(error)})

    def age_s(self, role: str, now_s: float) -> float | None:
        """Return the seconds since a process last said that it is alive."""
        try:
            return now_s - self._mark(role).stat().st_mtime
        except FileNotFoundError:
            return None

    def _mark(self, role: str) -> Path:
        return self.path / f"{role}.alive"
