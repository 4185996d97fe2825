"""An erasure ordered over the API of a running service."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from sidelight.service._erasure_orders import ErasureAnswer
from sidelight.service.errors import BadRequest, ConfigurationError, OnHold, ServiceError

_PATIENCE_S: Final = 600.0
_PAUSE_S: Final = 0.5
_ACCEPTED: Final = 202
_HELD: Final = 409
_WRONG: Final = frozenset({400, 404, 422})


def erase_remotely(
    url: str,
    token_file: Path | None,
    value: Mapping[str, Any],
    *,
    transport: httpx.BaseTransport | None = None,
) -> ErasureAnswer:
    """Order an erasure and wait until it is done.

    Raises
    ------
    ServiceError
        When it was refused, or nobody answers.

    """
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError(f"--url: expected http(s)://HOST:PORT, got {url!r}")
    headers = {}
    if token_file is not None:
        try:
            headers["Authorization"] = f"Bearer {token_file.read_text().strip()}"
        except OSError as error:
            raise ConfigurationError(f"--token-file: {error.strerror}") from error
    deadline = time.monotonic() + _PATIENCE_S
    with httpx.Client(
        base_url=url.rstrip("/"), headers=headers, timeout=120.0, transport=transport
    ) as client:
        try:
            answer = client.post("/v1/erasures", json=dict(value))
            while answer.status_code == _ACCEPTED:
                if time.monotonic() > deadline:
                    raise ServiceError(
                        f"{answer.json()['id']}: not done yet; the service works on it",
                        hint="GET /v1/erasures/{id} says when it is done",
                    )
                time.sleep(_PAUSE_S)
                answer = client.get(f"/v1/erasures/{answer.json()['id']}")
        except httpx.TransportError as error:
            raise ServiceError(f"the service cannot be reached: {error}") from error
    if answer.is_success:
        return ErasureAnswer.from_json(answer.json())
    raise _problem(answer)


def _problem(answer: httpx.Response) -> ServiceError:
    try:
        told = answer.json()
    except ValueError:
        return ServiceError("--url: expected Sidelight, got something else")
    detail = str(told.get("detail", f"the service answered {answer.status_code}"))
    hint = str(told.get("hint", ""))
    if answer.status_code == _HELD:
        return OnHold(detail, hint=hint)
    kind = BadRequest if answer.status_code in _WRONG else ServiceError
    return kind(detail, hint=hint)
