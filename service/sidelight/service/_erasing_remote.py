"""An erasure ordered over the API of a running service."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from sidelight.service._erasure_orders import ErasureAnswer
from sidelight.service._http_client import http_client, refusal
from sidelight.service.errors import ServiceError

_PATIENCE_S: Final = 600.0
_PAUSE_S: Final = 0.5
_TIMEOUT_S: Final = 120.0
_ACCEPTED: Final = 202


def erase_remotely(
    url: str,
    token_file: Path | None,
    value: Mapping[str, Any],
    *,
    tell: Callable[[ErasureAnswer], object] = lambda _: None,
    transport: httpx.BaseTransport | None = None,
) -> ErasureAnswer:
    """Order an erasure and wait until it is done; ``tell`` gets what is known meanwhile.

    Raises
    ------
    ServiceError
        When it was refused, or nobody answers.

    """
    deadline = time.monotonic() + _PATIENCE_S
    with http_client(
        "--url", url, token_file=token_file, timeout=_TIMEOUT_S, transport=transport
    ) as client:
        try:
            answer = client.post("/v1/erasures", json=dict(value))
            while answer.status_code == _ACCEPTED:
                running = ErasureAnswer.from_json(answer.json())
                tell(running)
                if time.monotonic() > deadline:
                    told = running.told() or "the service works on it"
                    raise ServiceError(
                        f"{running.id}: not done yet; {told}",
                        hint=f"GET /v1/erasures/{running.id} says when it is done",
                    )
                time.sleep(_PAUSE_S)
                answer = client.get(f"/v1/erasures/{running.id}")
        except httpx.TransportError as error:
            raise ServiceError(f"the service cannot be reached: {error}") from error
    if not answer.is_success:
        raise refusal(answer, role="admin")
    return ErasureAnswer.from_json(answer.json())
