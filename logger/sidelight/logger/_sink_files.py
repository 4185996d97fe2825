"""What a sink shows to its receiver out of files that others renew: tokens and certificates."""

import logging
import os
import ssl
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger(__name__)

_Stamp = tuple[int, int, int]


class HeaderFiles:
    """Headers whose values stand in files, read again when these change.

    Parameters
    ----------
    files : mapping of str to Path
        By the name of the header. White space around the value does not count.

    Raises
    ------
    ValueError
        When a file cannot be read, or holds nothing or more than one line.

    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = dict(files)
        self._known: dict[str, tuple[_Stamp, bytes]] = {}
        for name, path in self._files.items():
            try:
                self._known[name] = (_stamp(path), _line(name, path))
            except OSError as error:
                raise ValueError(
                    f"header {name}: expected a file with its value, got {error.strerror}"
                ) from error

    def lines(self) -> bytes:
        """Return the headers as they are now; what became unreadable stays as it was."""
        for name, path in self._files.items():
            try:
                stamp = _stamp(path)
                if stamp != self._known[name][0]:
                    self._known[name] = (stamp, _line(name, path))
            except (OSError, ValueError):
                log.warning("the value of a header cannot be read again", extra={"header": name})
        return b"".join(line for _, line in self._known.values())


class TlsFiles:
    """The context of a connection, made again when its files change.

    Parameters
    ----------
    ca : Path, optional
        Certificates of the authorities to trust, PEM; the system's otherwise.
    certificate, key : Path, optional
        Our own certificate, and its key when that is in a file of its own, PEM.

    Raises
    ------
    ValueError
        When a file cannot be used.

    """

    def __init__(
        self, *, ca: Path | None = None, certificate: Path | None = None, key: Path | None = None
    ) -> None:
        if key is not None and certificate is None:
            raise ValueError("key_file: expected a certificate_file beside it, got none")
        self._ca, self._certificate, self._key = ca, certificate, key
        self._stamps = self._now()
        self._context = self._made()

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection; the one before while the files are broken."""
        stamps = self._now()
        if stamps != self._stamps:
            try:
                self._context = self._made()
            except ValueError:
                log.warning("the certificates of a sink cannot be read again")
            else:
                self._stamps = stamps
        return self._context

    def _now(self) -> list[_Stamp | None]:
        stamps: list[_Stamp | None] = []
        for path in (self._ca, self._certificate, self._key):
            try:
                stamps.append(None if path is None else _stamp(path))
            except OSError:
                stamps.append(None)
        return stamps

    def _made(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._ca)
            if self._certificate is not None:
                # Without a password the library would ask for one on the terminal.
                context.load_cert_chain(self._certificate, self._key, password="")
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", None) or getattr(error, "strerror", None) or "no PEM"
            raise ValueError(f"certificates of a sink: expected PEM files, got {why}") from error
        return context


def _stamp(path: Path) -> _Stamp:
    # Through links: tokens of Kubernetes are replaced by another target of a link.
    status = os.stat(path)  # noqa: PTH116 - for each request; a Path costs more than the call
    return status.st_mtime_ns, status.st_size, status.st_ino


def _line(name: str, path: Path) -> bytes:
    value = path.read_bytes().strip()
    if not value or set(value) & set(b"\r\n\0"):
        raise ValueError(f"header {name}: expected one line in its file, got none or several")
    return b"%b: %b\r\n" % (name.encode("latin-1"), value)
