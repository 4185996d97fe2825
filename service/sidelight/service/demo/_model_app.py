"""The demo's model behind the routes of the V2 (Open Inference) protocol."""

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from sidelight.service.demo._inference_protocol import (
    MODEL_NAME,
    MODEL_VERSION,
    decode_infer,
    encode_answer,
    model_metadata,
)
from sidelight.service.demo._micro_batch import MicroBatch
from sidelight.service.demo._model import FlightModel
from sidelight.service.demo.errors import InferError

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_MAX_BODY_BYTES = 64 * 1024 * 1024
_SERVER = {"name": "sidelight-demo", "version": MODEL_VERSION, "extensions": []}


class ModelApp:
    """A plain ASGI application that serves one model.

    Parameters
    ----------
    model : FlightModel
        Fitted; asked by one call for all requests of a moment.

    """

    def __init__(self, model: FlightModel) -> None:
        self._model = model
        self._batch = MicroBatch(model.probability)
        names = (f"/v2/models/{MODEL_NAME}", f"/v2/models/{MODEL_NAME}/versions/{MODEL_VERSION}")
        self._infer = {f"{name}/infer" for name in names}
        ready = {"name": MODEL_NAME, "ready": True}
        self._documents: dict[str, dict[str, Any]] = {
            "/v2": _SERVER,
            "/v2/health/live": {"live": True},
            "/v2/health/ready": {"ready": True},
        }
        self._documents |= dict.fromkeys(names, model_metadata())
        self._documents |= {f"{name}/ready": ready for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; whatever is wrong with it is a 4xx with ``{"error": ...}``."""
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        try:
            status, body = 200, await self._answer(scope, receive)
        except InferError as error:
            status, body = error.status, msgspec.json.encode({"error": str(error)})
        except Exception:
            log.exception("request failed")
            status, body = 500, b'{"error":"the model failed; its log says why"}'
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> bytes:
        path, method = scope["path"].rstrip("/"), scope["method"]
        if path in self._infer:
            if method != "POST":
                raise InferError("method", expected="POST", got=method, status=405)
            return await self._infer_answer(await _body(receive))
        document = self._documents.get(path)
        if document is None:
            known = f"/v2/models/{MODEL_NAME}/infer"
            raise InferError("path", expected=known, got=repr(path), status=404)
        if method not in {"GET", "HEAD"}:
            raise InferError("method", expected="GET", got=method, status=405)
        return msgspec.json.encode(document)

    async def _infer_answer(self, body: bytes) -> bytes:
        request = decode_infer(body)
        rows = self._model.matrix(request.columns)
        return encode_answer(request, await self._batch.probability(rows), self._model.threshold)


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    n_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InferError("body", expected="all of it", got="a closed connection")
        part = message.get("body", b"")
        n_bytes += len(part)
        if n_bytes > _MAX_BODY_BYTES:
            limit = f"at most {_MAX_BODY_BYTES} bytes"
            raise InferError("body", expected=limit, got="more", status=413)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
