"""A Sidelight elsewhere, as every command asks it that is given an address."""

from collections.abc import Mapping
from pathlib import Path

import httpx
import orjson

from sidelight.service.errors import BadRequest, ConfigurationError, NotFound, OnHold, ServiceError

# The errors that a status stands for, as the routes for queries and erasures answer it.
_KINDS: Mapping[int, type[ServiceError]] = {
    400: BadRequest,
    404: NotFound,
    406: BadRequest,
    409: OnHold,
    410: NotFound,
    422: BadRequest,
}
_NOT_ALLOWED = frozenset({401, 403})


def http_client(
    option: str,
    url: str,
    *,
    token_file: Path | None,
    timeout: float | httpx.Timeout,
    transport: httpx.BaseTransport | None = None,
) -> httpx.Client:
    """Return a client that sends the token of a file with each request.

    Parameters
    ----------
    option : str
        The one that the address was given by, for messages.
    url : str
        The address, as ``http://127.0.0.1:8090``.
    token_file : Path or None
        File with the token.
    timeout : float or httpx.Timeout
        Of one request, in seconds.
    transport : httpx.BaseTransport, optional
        For tests.

    Raises
    ------
    ConfigurationError
        When the address or the file cannot be used.

    """
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError(f"{option}: expected http(s)://HOST:PORT, got {url!r}")
    headers = {}
    if token_file is not None:
        try:
            headers["Authorization"] = f"Bearer {token_file.read_text().strip()}"
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"--token-file: expected a file with a token, {token_file} cannot be read: {error}"
            ) from error
    return httpx.Client(
        base_url=url.rstrip("/"), headers=headers, timeout=timeout, transport=transport
    )


def refusal(answer: httpx.Response, *, role: str) -> ServiceError:
    """Return the error that an answer stands for, with what its problem document says."""
    try:
        told = orjson.loads(answer.content)
        detail, expected, hint = (str(told.get(key, "")) for key in ("detail", "expected", "hint"))
    except (orjson.JSONDecodeError, AttributeError):
        detail, expected, hint = "", "", ""
    if answer.status_code in _NOT_ALLOWED:
        hint = hint or f"name a token with role {role} with --token-file"
    kind = _KINDS.get(answer.status_code, ServiceError)
    return kind(
        detail or f"the service answered {answer.status_code}", expected=expected, hint=hint
    )
