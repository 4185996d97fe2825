"""The official ``tritonclient`` calls a model through the gRPC proxy; it sees the model alone."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import uvloop
from tests.services.server_process import cached, run

from sidelight.adapters.dialects import Half, Side
from sidelight.adapters.dialects._v2_grpc import OpenInferenceMessages
from sidelight.logger import Capture, Exchange
from sidelight.logger._binary_tensors import encode
from sidelight.logger._open_inference import (
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)
from sidelight.logger.grpc import serve_grpc

_CLIENT = Path(__file__).with_name("tritonclient_calls.py")
_VERSION = "2.73.0"
_YES = b"\x08\x01"  # field 1, true: ServerLiveResponse, ModelReadyResponse
_NO = b""
# A limit that a slow machine does not reach, nor one that stands still for seconds.
_PATIENCE_S = 300.0


def python_with_tritonclient() -> Path:
    def prepare(folder: Path) -> None:
        run(sys.executable, "-m", "venv", folder)
        run(
            folder / "bin" / "python",
            "-m",
            "pip",
            "install",
            "-q",
            f"tritonclient[grpc]=={_VERSION}",
        )

    return cached(f"tritonclient-{_VERSION}", prepare) / "bin" / "python"


class Kept:
    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def wants(self, method: bytes, target: bytes, head: bytes) -> bool:
        return method == b"POST" and target.startswith(b"/") and head.endswith(b"\r\n\r\n")

    def offer(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)


class Model(grpc.GenericRpcHandler):  # type: ignore[misc] # grpc has no types
    """Answers as a Triton server does; ``slow`` is ready once it was asked for an answer."""

    def __init__(self) -> None:
        self._is_slow_asked = False
        make = {"unary_unary": grpc.unary_unary_rpc_method_handler}
        self._handlers = {
            "ServerLive": make["unary_unary"](_yes),
            "ModelReady": make["unary_unary"](self._ready),
            "ModelInfer": make["unary_unary"](
                self._infer, ModelInferRequest.FromString, ModelInferResponse.SerializeToString
            ),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(
                _stream, ModelInferRequest.FromString, ModelStreamInferResponse.SerializeToString
            ),
        }

    def service(self, handler_call_details: Any) -> Any:
        return self._handlers.get(handler_call_details.method.rpartition("/")[2])

    async def _ready(self, request: bytes, _: Any) -> bytes:
        return _YES if self._is_slow_asked or b"slow" not in request else _NO

    async def _infer(self, request: Any, context: Any) -> Any:
        if request.model_name == "slow":
            self._is_slow_asked = True
            await asyncio.Event().wait()
        return await _infer(request, context)


async def _yes(_: bytes, __: Any) -> bytes:
    return _YES


async def _infer(request: Any, context: Any) -> Any:
    if request.model_name == "missing":
        await context.abort(grpc.StatusCode.NOT_FOUND, "Request for unknown model")
    (values, *_) = request.raw_input_contents
    response = ModelInferResponse(model_name="flights", model_version="2", id=request.id)
    sums = np.frombuffer(values, "<f4").reshape(list(request.inputs[0].shape)).sum(axis=1)
    response.outputs.add(name="delay", datatype="FP32", shape=[len(sums)])
    response.outputs.add(name="label", datatype="BYTES", shape=[len(sums)])
    response.raw_output_contents.append(sums.tobytes())
    response.raw_output_contents.append(encode("BYTES", ["late"] * len(sums)))
    return response


async def _stream(requests: AsyncIterator[Any], _: Any) -> AsyncIterator[Any]:
    """Answer the first request once, the second with an error, the third twice."""
    async for request in requests:
        if request.id == "stream-1":
            yield ModelStreamInferResponse(
                error_message="no words", infer_response=ModelInferResponse(id=request.id)
            )
            continue
        n_words = 2 if request.id == "stream-2" else 1
        for number in range(n_words):
            response = ModelInferResponse(model_name="words", model_version="1", id=request.id)
            response.parameters["triton_final_response"].bool_param = number == n_words - 1
            response.outputs.add(name="word", datatype="INT32", shape=[1])
            response.raw_output_contents.append(encode("INT32", [number]))
            yield ModelStreamInferResponse(infer_response=response)


async def called_through_the_proxy(tmp_path: Path) -> tuple[dict[str, Any], list[Exchange]]:
    python = await asyncio.to_thread(python_with_tritonclient)
    options = [("grpc.max_receive_message_length", -1)]
    model = grpc.aio.server(options=options)
    model.add_generic_rpc_handlers((Model(),))
    model.add_insecure_port(f"unix:{tmp_path}/model")
    await model.start()
    tap = Kept()
    proxy = await serve_grpc("127.0.0.1:0", f"unix:{tmp_path}/model", tap)
    try:
        client = await asyncio.create_subprocess_exec(
            python, _CLIENT, proxy.address, stdout=subprocess.PIPE
        )
        async with asyncio.timeout(_PATIENCE_S):
            output, _ = await client.communicate()
    finally:
        await proxy.drain(_PATIENCE_S)
        await model.stop(None)
    assert client.returncode == 0
    assert proxy.counts.tap_errors == proxy.counts.unmatched == proxy.counts.captured_bytes == 0
    return json.loads(output), tap.exchanges


def read(exchange: Exchange, side: Side) -> Half:
    body = exchange.request_body if side == "request" else exchange.response_body
    return OpenInferenceMessages().decode(body, side)


def test_tritonclient_is_answered_and_captured(tmp_path: Path) -> None:
    seen, exchanges = uvloop.run(called_through_the_proxy(tmp_path))

    assert seen == {
        "live": True,
        "ready": True,
        "delay": [3.0, 7.5],
        "label": ["late", "late"],
        "errors": ["StatusCode.NOT_FOUND", "StatusCode.DEADLINE_EXCEEDED"],
        "stream": [
            ["stream-0", [0]],
            ["error", "no words"],
            ["stream-2", [0]],
            ["stream-2", [1]],
        ],
    }
    # The deadline of the client may have been over before the model was asked; then it tried again.
    slow = [exchange for exchange in exchanges if exchange.status == 504]
    assert [exchange for exchange in slow if exchange.request_id.startswith(b"slow")]
    others = [exchange for exchange in exchanges if exchange.status != 504]
    by_id = {exchange.request_id.decode(): exchange for exchange in others}
    assert len(by_id) == len(others) == 7

    one = by_id["one"]
    request, response = read(one, "request"), read(one, "response")
    assert request.values == ([1.0, 2.0, 3.0, 4.5], ["UA", "Ä"])
    assert response.values == ([3.0, 7.5], ["late", "late"])
    assert (request.rows, response.rows, response.facts["version"]) == (2, 2, "2")
    assert one.status == 200
    first, second = Capture(namespace="prod").events(one)
    for event in (first, second):
        attributes = json.loads(event.attributes + b"}")
        assert attributes["id"] == "one"
        assert attributes["namespace"] == "prod"
        assert attributes["inferenceservicename"] == attributes["modelname"] == "flights"
        assert attributes["modelversion"] == "2"
        assert attributes["protocol"] == "v2"
        assert attributes["requestpath"] == "/inference.GRPCInferenceService/ModelInfer"
        assert attributes["traceparent"].startswith("00-0af7651916cd43dd")
        assert attributes["datacontenttype"] == "application/protobuf"

    # The proxy sees what the client compressed as the model does.
    assert read(by_id["compressed"], "request").values == request.values
    assert len(by_id["large"].request_body) > 8_000_000
    missing = next(item for item in exchanges if b"model=missing" in item.target)
    assert missing.status == 404

    assert read(by_id["stream-0"], "response").values == ([0],)
    assert read(by_id["stream-2"], "response").values == ([0, 1],)
    assert by_id["stream-1"].status == 500
    assert read(by_id["stream-1"], "response").facts == {"error": "no words"}
