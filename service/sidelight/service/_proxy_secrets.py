"""Secrets of the proxy: the configuration says where they are, and only building reads them."""

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sidelight.service.errors import ConfigurationError

if TYPE_CHECKING:
    from sidelight.service._proxy_settings import ProxySettings

_ENVIRONMENT = "env:"
# Names of headers and settings whose values nobody should find in a file of configuration.
_TELLING = re.compile(
    r"authorization|cookie|token|secret|passw|api[-_.]?key|credential", re.IGNORECASE
)


def is_telling(name: str) -> bool:
    """Whether the name of a header or a setting says that its value is a secret."""
    return _TELLING.search(name) is not None


def is_variable(place: str) -> bool:
    """Whether a place is in the environment, not a file."""
    return place.startswith(_ENVIRONMENT)


def read_secret(key: str, place: str) -> str:
    """Return the secret that stands in a file, or behind ``env:NAME`` in the environment.

    Parameters
    ----------
    key : str
        Path of the key that names the place, for the error.
    place : str
        Path of a file, or ``env:`` and the name of a variable. It is never shown: who writes the
        secret itself here by mistake must not find it in a log.

    Raises
    ------
    ConfigurationError
        When there is no such place, or no text in it.

    """
    try:
        secret = read_key(key, place).decode().strip()
    except UnicodeDecodeError:
        raise _absent(key, "it is no text") from None
    if not secret:
        raise _absent(key, "nothing but blanks")
    return secret


def read_key(key: str, place: str) -> bytes:
    """Return the same as bytes, which need not be a text; line ends behind them do not count."""
    if is_variable(place):
        secret = os.environ.get(place.removeprefix(_ENVIRONMENT), "").encode()
        why = "no such variable, or it is empty"
    else:
        try:
            secret, why = Path(place).read_bytes().rstrip(b"\r\n"), "the file is empty"
        except OSError as error:
            raise _absent(key, error.strerror or "it cannot be read") from None
        except ValueError:
            raise _absent(key, "it is no path") from None
    if not secret:
        raise _absent(key, why)
    return secret


def admin_token(settings: "ProxySettings") -> Callable[[], str] | None:
    """Return what reads the token of the metrics, anew each time; None where they ask for none."""
    place = settings.admin_token_from
    return None if place is None else partial(read_secret, "proxy.admin_token_from", place)


def _absent(key: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{key}: expected the path of a file that holds the secret, or env:NAME ({why})"
    )
