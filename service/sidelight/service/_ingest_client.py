"""The way of the API to the door: over its Unix socket, as any other sender of events."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import httpx
import orjson

from sidelight.logger.errors import JournalError


class IngestClient:
    """Sends what the API accepts as events, so that it is in the archive like everything else."""

    def __init__(self, socket: Path) -> None:
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket)), base_url="http://door", timeout=10
        )

    async def send(self, event_type: str, items: list[dict[str, Any]]) -> None:
        """Return when all items are durable, one event each; each names its ``deployment``.

        Raises
        ------
        JournalError
            If the door cannot be reached or refuses; nothing may have been stored.

        """
        content = event_batch(event_type, items)
        headers = {"Content-Type": "application/cloudevents-batch+json"}
        try:
            answer = await self._client.post("/events", content=content, headers=headers)
        except httpx.HTTPError as error:
            raise JournalError("the door does not answer; send the request again") from error
        if answer.status_code != 200:  # noqa: PLR2004 - OK
            raise JournalError(f"the door answered {answer.status_code}; send the request again")

    async def counters(self) -> dict[str, Any]:
        """Return the door's own counters; empty when it does not answer."""
        try:
            answer = await self._client.get("/door", timeout=2)
        except httpx.HTTPError:
            return {}
        value: dict[str, Any] = orjson.loads(answer.content) if answer.is_success else {}
        return value

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def event_batch(event_type: str, items: list[dict[str, Any]]) -> bytes:
    """Return a JSON batch with one event for each item, of the deployment that the item names."""
    batch = [
        {
            "specversion": "1.0",
            "id": uuid4().hex,
            "source": "sidelight-api",
            "type": event_type,
            "datacontenttype": "application/json",
            **_names(item["deployment"]),
            "data": item,
        }
        for item in items
    ]
    return _written(batch)


def _names(deployment: str) -> dict[str, str]:
    # Extensions carry names as the platforms send them, not in their stored form.
    namespace, _, name = deployment.partition("/")
    return {"namespace": unquote(namespace), "inferenceservicename": unquote(name)}


def _written(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        # Integers of more than 64 bits, which orjson does not write.
        return json.dumps(value).encode()
