"""gRPC through the process of the proxy: the same emitter, and drained at its end."""

import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import httpx
import orjson
import pytest

_INFER = "/inference.GRPCInferenceService/ModelInfer"
# model_name "m", id "r-1"; an answer with the same.
_REQUEST = b"\x0a\x01m\x1a\x03r-1"
_ANSWER = b"\x0a\x01m\x1a\x03r-1"
# A limit that a slow machine does not reach, nor one that stands still for seconds.
_PATIENCE_S = 180.0
_ADDRESS = re.compile(rb"grpc='(127\.0\.0\.1:\d+)'")


class _Model:
    """A model server for gRPC that answers when it may."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers((_Handler(self),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def infer(self, request: bytes, context: Any) -> bytes:
        assert request == _REQUEST, context
        self.asked.set()
        assert self.may_answer.wait(_PATIENCE_S)
        return _ANSWER

    def close(self) -> None:
        self.may_answer.set()
        self._server.stop(None).wait()


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc] # grpc has no types
    def __init__(self, model: _Model) -> None:
        self._model = model

    def service(self, _: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._model.infer)


@pytest.fixture
def model() -> Iterator[_Model]:
    model = _Model()
    yield model
    model.close()


@pytest.fixture
def sink() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    events: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            events.extend(orjson.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", events
    server.shutdown()
    server.server_close()


def _start(proxy: Any, *arguments: str) -> str:
    """Start with gRPC alone; return its address."""
    proxy.spawn(
        *("proxy", "--grpc-listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
        *("--spool", str(proxy.spool), *arguments),
    )
    return proxy.wait_for_log(_ADDRESS)[1].decode()  # type: ignore[no-any-return]


def test_a_call_is_captured_and_what_is_in_work_is_answered_at_the_end(
    make_proxy: Callable[[], Any], model: _Model, sink: tuple[str, list[dict[str, Any]]]
) -> None:
    url, events = sink
    proxy = make_proxy()
    address = _start(
        proxy, "--grpc-upstream", model.address, "--sink", url, "--config", str(proxy.patient)
    )
    with grpc.insecure_channel(address) as channel:
        infer = channel.unary_unary(_INFER)
        first = infer(_REQUEST, timeout=_PATIENCE_S)
        model.asked.clear()
        model.may_answer.clear()
        second = infer.future(_REQUEST, timeout=_PATIENCE_S)
        assert model.asked.wait(_PATIENCE_S)

        proxy.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            proxy.wait(1.0)
        model.may_answer.set()
        answered = second.result()
    status = proxy.wait()

    assert (first, answered) == (_ANSWER, _ANSWER)
    assert status == 0
    assert [event["id"] for event in events] == ["r-1"] * 4
    assert {event["requestpath"] for event in events} == {_INFER}
    assert {event["inferenceservicename"] for event in events} == {"m"}


def test_a_call_that_is_never_answered_does_not_hold_up_the_end(
    make_proxy: Callable[[], Any],
    model: _Model,
    sink: tuple[str, list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    path = tmp_path / "sidelight.yaml"
    path.write_text(
        f"proxy: {{grace: 2s, sink: '{sink[0]}', grpc: {{upstream: '{model.address}'}}}}"
    )
    proxy = make_proxy()
    address = _start(proxy, "--config", str(path))
    model.may_answer.clear()
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(_INFER).future(_REQUEST, timeout=_PATIENCE_S)
        assert model.asked.wait(_PATIENCE_S)

        proxy.terminate()
        status = proxy.wait()

        assert call.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert status == 0


def test_both_doors_share_one_account(
    start_proxy: Any, model: _Model, sink: tuple[str, list[dict[str, Any]]]
) -> None:
    url, events = sink
    proxy = start_proxy(
        **{
            "upstream": "http://127.0.0.1:1",
            "sink": url,
            "grpc-upstream": model.address,
            "grpc-listen": "127.0.0.1:0",
        }
    )
    httpx.post(f"{proxy.url}/v1/models/h:predict", json={"instances": [[1]]}, timeout=_PATIENCE_S)
    with grpc.insecure_channel(proxy.wait_for_log(_ADDRESS)[1].decode()) as channel:
        channel.unary_unary(_INFER)(_REQUEST, timeout=_PATIENCE_S)
    # The caller has its answer before the account does.
    proxy.wait_for_metrics(
        lambda metrics: metrics.total("capture_events_total", outcome="seen") == 4
    )
    metrics = proxy.metrics()
    status = proxy.stop()

    assert status == 0
    assert metrics.total("capture_events_total", outcome="seen") == 4
    assert metrics.total("capture_grpc_calls_total") == 1
    assert metrics.total("capture_grpc_exchanges_total") == 1
    assert {event["inferenceservicename"] for event in events} == {"h", "m"}
