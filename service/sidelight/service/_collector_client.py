"""What commands send to a collector: one request after the other, each until it is taken."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import httpx

from sidelight.service._http_client import http_client
from sidelight.service.errors import ServiceError

log = logging.getLogger(__name__)

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 10.0
# So long nothing is taken, then the command gives up: it can be run again from where it stopped.
_PATIENCE_S: Final = 120.0
_TIMEOUT_S: Final = 30.0
# Sent again they may be taken; what else is refused stays refused.
_PASSING: Final = frozenset({404, 408, 409, 429})


class CollectorClient:
    """Posts to a collector, or to anything else that takes CloudEvents.

    Parameters
    ----------
    url : str
        Its address, as ``http://127.0.0.1:8090``.
    token_file : Path, optional
        File with the token to send.
    patience_s : float, default 120
        How long nothing may be taken, seconds.
    transport : httpx.BaseTransport, optional
        For tests.

    Raises
    ------
    ConfigurationError
        When the address or the file cannot be used.

    """

    def __init__(
        self,
        url: str,
        *,
        token_file: Path | None = None,
        patience_s: float = _PATIENCE_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._patience_s = patience_s
        self._client = http_client(
            "--to", url, token_file=token_file, timeout=_TIMEOUT_S, transport=transport
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def post(self, path: str, body: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Send one request until it is taken; False when it is refused for good.

        Raises
        ------
        ServiceError
            When nobody takes it for as long as there is patience, or the token is not taken.

        """
        pause_s, deadline = _FIRST_PAUSE_S, time.monotonic() + self._patience_s
        while True:
            why, asked_s = "the collector cannot be reached", None
            try:
                answer = self._client.post(path, content=body, headers=list(headers))
            except httpx.TransportError:
                pass
            else:
                if answer.is_success:
                    return True
                if answer.status_code in {401, 403}:
                    raise ServiceError(
                        f"the collector answered {answer.status_code}: the token is not enough",
                        hint="name a token with role ingest with --token-file",
                    )
                if answer.is_client_error and answer.status_code not in _PASSING:
                    log.warning("refused", extra={"status": answer.status_code})
                    return False
                why, asked_s = f"the collector answered {answer.status_code}", _retry_after(answer)
            if time.monotonic() > deadline:
                raise ServiceError(f"given up after {self._patience_s:g} s: {why}")
            time.sleep(min(_LONGEST_PAUSE_S, max(pause_s, asked_s or 0.0)))
            pause_s *= 2


def _retry_after(answer: httpx.Response) -> float | None:
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isdecimal() else None
