"""Contexts of TLS from their settings."""

import logging
import ssl
from pathlib import Path

from sidelight.service._proxy_settings_sinks import TlsSettings
from sidelight.service.errors import ConfigurationError

log = logging.getLogger(__name__)


def tls_context(key: str, settings: TlsSettings | None) -> ssl.SSLContext:
    """Make the context of connections that we open.

    Parameters
    ----------
    key : str
        Path of the section, for the errors.
    settings : TlsSettings or None
        None trusts the authorities of the system.

    Raises
    ------
    ConfigurationError
        When a file cannot be used.

    """
    given = settings or TlsSettings()
    context = _trusting(key, given.ca)
    if not given.verify:
        log.warning("the other side's certificate is not checked", extra={"key": f"{key}.verify"})
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if given.certificate is not None:
        try:
            # Without a password the library would ask for one on the terminal.
            context.load_cert_chain(given.certificate, given.key, password="")
        except (OSError, ValueError) as error:
            raise _unusable(f"{key}.certificate", "a certificate and its key", error) from error
    elif given.key is not None:
        raise ConfigurationError(f"{key}.key: expected a certificate beside it, got none")
    return context


def _trusting(key: str, ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ValueError) as error:
        raise _unusable(f"{key}.ca", "certificates of authorities", error) from error


def _unusable(key: str, what: str, error: Exception) -> ConfigurationError:
    why = getattr(error, "reason", None) or getattr(error, "strerror", None) or "unreadable"
    return ConfigurationError(f"{key}: expected a PEM file with {what} ({why})")
