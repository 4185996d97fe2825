"""The certificate of the door, followed while it serves: renewals must not need a restart."""

import asyncio
import logging
import ssl
from typing import Final

from sidelight.service._settings_access import ListenTlsSettings
from sidelight.service.errors import ConfigurationError

log = logging.getLogger(__name__)

_LOOK_S: Final = 1.0

_Seen = tuple[tuple[int, int, int] | None, ...]


def tls_context(settings: ListenTlsSettings) -> ssl.SSLContext:
    """Return what connections are encrypted with.

    Raises
    ------
    ConfigurationError
        When the files cannot be used.

    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        _load(context, settings)
    except OSError as error:
        # An SSLError is one as well.
        raise ConfigurationError(
            f"listen.tls: cannot be used: {error.strerror or error}"
        ) from error
    return context


class DoorTls:
    """A context that takes over what its files become; connections that are open keep theirs.

    Parameters
    ----------
    settings : ListenTlsSettings
        Names the files.

    Attributes
    ----------
    context : ssl.SSLContext
        For the sockets of the door.

    Raises
    ------
    ConfigurationError
        When the files cannot be used.

    """

    def __init__(self, settings: ListenTlsSettings) -> None:
        self._settings = settings
        self._seen = self._look()
        self.context = tls_context(settings)

    def refresh(self) -> bool:
        """Take over the files if they have changed and can be used; return whether they were.

        A certificate without its key yet is no error for long: the former one goes on until both
        are there. Authorities are added; one that is taken out counts until a restart.
        """
        seen = self._look()
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            tls_context(self._settings)
            _load(self.context, self._settings)
        except (ConfigurationError, OSError) as error:
            log.warning("new TLS files cannot be used, the former go on: %s", error)
            return False
        log.info("TLS files were renewed")
        return True

    async def follow(self) -> None:
        """Look for changes until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            self.refresh()

    def _look(self) -> _Seen:
        files = (self._settings.certificate, self._settings.key, self._settings.clients)
        found: list[tuple[int, int, int] | None] = []
        for path in files:
            try:
                stat = None if path is None else path.stat()
            except OSError:
                stat = None
            found.append(stat and (stat.st_ino, stat.st_mtime_ns, stat.st_size))
        return tuple(found)


def _load(context: ssl.SSLContext, settings: ListenTlsSettings) -> None:
    context.load_cert_chain(settings.certificate, settings.key)
    if settings.clients is not None:
        context.load_verify_locations(settings.clients)
        context.verify_mode = ssl.CERT_REQUIRED
