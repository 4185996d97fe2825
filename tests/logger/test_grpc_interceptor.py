"""Interceptors inside of real servers of gRPC: all shapes of handlers, with typed messages."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import grpc
import grpc.aio
import pytest

from sidelight.logger import Exchange
from sidelight.logger._open_inference import (
    ModelInferRequest,
    ModelInferResponse,
)
from sidelight.logger.grpc import BlockingCaptureInterceptor, CaptureInterceptor

UNARY = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


class Kept:
    """A tap that keeps what it is offered."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self._changed = threading.Condition()

    async def wait_for(self, n_exchanges: int) -> None:
        """Return when there are as many; they may come from threads."""
        assert await asyncio.to_thread(self._wait, n_exchanges)

    def _wait(self, n_exchanges: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: len(self.exchanges) >= n_exchanges, 60)

    def wants(self, method: bytes, target: bytes, head: bytes) -> bool:
        assert method == b"POST"
        assert target.startswith(b"/inference.")
        return b"sidelight-skip: true" not in head

    def offer(self, exchange: Exchange) -> None:
        with self._changed:
            self.exchanges.append(exchange)
            self._changed.notify_all()


def answer(request: Any) -> Any:
    return ModelInferResponse(model_name=request.model_name, model_version="7", id=request.id)


async def fail(request: Any, context: Any) -> None:
    if request.model_name == "missing":
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such model", (("why", "gone"),))
    if request.model_name == "broken":
        raise LookupError("a secret")
    if request.model_name == "coded":
        context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
        context.set_details("bad shape")


async def unary_unary(request: Any, context: Any) -> Any:
    await fail(request, context)
    if request.model_name == "slow":
        await asyncio.Event().wait()
    context.set_trailing_metadata((("behind", "1"), ("raw-bin", b"\x00\xff")))
    return answer(request)


async def unary_stream(request: Any, context: Any) -> AsyncIterator[Any]:
    await fail(request, context)
    for _ in range(2):
        yield answer(request)


async def unary_stream_writing(request: Any, context: Any) -> None:
    await context.send_initial_metadata((("before", "1"),))
    await fail(request, context)
    for _ in range(2):
        await context.write(answer(request))


async def stream_unary(requests: AsyncIterator[Any], context: Any) -> Any:
    last = None
    async for last in requests:
        await fail(last, context)
    return answer(last)


async def stream_stream(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
    async for request in requests:
        await fail(request, context)
        yield answer(request)


async def stream_stream_reading(_: Any, context: Any) -> None:
    while (request := await context.read()) is not grpc.aio.EOF:
        await fail(request, context)
        await context.write(answer(request))


def fail_blocking(request: Any, context: Any) -> None:
    if request.model_name == "missing":
        context.set_trailing_metadata((("why", "gone"),))
        context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
    if request.model_name == "broken":
        raise LookupError("a secret")
    if request.model_name == "coded":
        context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
        context.set_details("bad shape")


def blocking_unary_unary(request: Any, context: Any) -> Any:
    fail_blocking(request, context)
    context.set_trailing_metadata((("behind", "1"), ("raw-bin", b"\x00\xff")))
    return answer(request)


def blocking_unary_stream(request: Any, context: Any) -> Iterator[Any]:
    fail_blocking(request, context)
    for _ in range(2):
        yield answer(request)


def blocking_stream_unary(requests: Iterator[Any], context: Any) -> Any:
    last = None
    for last in requests:
        fail_blocking(last, context)
    return answer(last)


def blocking_stream_stream(requests: Iterator[Any], context: Any) -> Iterator[Any]:
    for request in requests:
        fail_blocking(request, context)
        yield answer(request)


class Service(grpc.GenericRpcHandler):  # type: ignore[misc] # grpc has no types
    def __init__(self, shape: str, behaviour: Callable[..., Any], path: str) -> None:
        make = getattr(grpc, f"{shape}_rpc_method_handler")
        self._handler = make(
            behaviour, ModelInferRequest.FromString, ModelInferResponse.SerializeToString
        )
        self._path = path

    def service(self, handler_call_details: Any) -> Any:
        return self._handler if handler_call_details.method == self._path else None


class Called:
    """What a client sees of one call."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.code = 0
        self.details = ""
        self.initial: dict[str, Any] = {}
        self.trailing: dict[str, Any] = {}


async def called(channel: Any, shape: str, path: str, names: list[str], **call: Any) -> Called:
    """Ask for each name; the client's side of any shape is a stream on the wire."""
    seen = Called()
    serialise = call.pop("serialise", ModelInferRequest.SerializeToString)
    stream = channel.stream_stream(path, serialise)(**call)
    try:
        for number, name in enumerate(names):
            await stream.write(ModelInferRequest(model_name=name, id=f"{shape}-{number}"))
        await stream.done_writing()
        async for message in stream:
            seen.answers.append(ModelInferResponse.FromString(message))
    except grpc.aio.AioRpcError:
        pass
    seen.code = (await stream.code()).value[0]
    seen.details = await stream.details()
    seen.initial = dict(tuple(await stream.initial_metadata()))
    seen.trailing = dict(tuple(await stream.trailing_metadata()))
    return seen


SHAPES = [
    pytest.param("unary_unary", unary_unary, id="unary_unary"),
    pytest.param("unary_stream", unary_stream, id="unary_stream"),
    pytest.param("unary_stream", unary_stream_writing, id="unary_stream that writes"),
    pytest.param("stream_unary", stream_unary, id="stream_unary"),
    pytest.param("stream_stream", stream_stream, id="stream_stream"),
    pytest.param("stream_stream", stream_stream_reading, id="stream_stream that reads"),
    pytest.param("unary_unary", blocking_unary_unary, id="unary_unary in a thread"),
    pytest.param("unary_stream", blocking_unary_stream, id="unary_stream in a thread"),
    pytest.param("stream_unary", blocking_stream_unary, id="stream_unary in a thread"),
    pytest.param("stream_stream", blocking_stream_stream, id="stream_stream in a thread"),
]
# Functions run in a server of grpc.aio and in one with threads, coroutines in the first only.
CASES = [pytest.param(*shape.values, "aio", id=f"{shape.id}, aio") for shape in SHAPES] + [
    pytest.param(*shape.values, "threads", id=f"{shape.id}, blocking")
    for shape in SHAPES
    if "thread" in str(shape.id)
]


def ask(
    shape: str,
    behaviour: Callable[..., Any],
    names: list[str],
    *,
    server: str = "aio",
    tap: Any = None,
    n_exchanges: int = 1,
    **call: Any,
) -> tuple[Called, list[Exchange]]:
    """Serve one method with an interceptor, call it once, and return both views of it."""
    kept = tap or Kept()
    path = UNARY if shape == "unary_unary" else STREAM

    async def main() -> Called:
        if server == "threads":
            pool = futures.ThreadPoolExecutor(4)
            running: Any = grpc.server(pool, interceptors=[BlockingCaptureInterceptor(kept)])
        else:
            running = grpc.aio.server(interceptors=[CaptureInterceptor(kept)])
        running.add_generic_rpc_handlers((Service(shape, behaviour, path),))
        port = running.add_insecure_port("127.0.0.1:0")
        started = running.start()
        if started is not None:
            await started
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            seen = await called(channel, shape, path, names, **call)
            await kept.wait_for(n_exchanges)
        stopped = running.stop(None)
        if server == "threads":
            stopped.wait()
            pool.shutdown()
        else:
            await stopped
        return seen

    return asyncio.run(main()), kept.exchanges


@pytest.mark.parametrize(("shape", "behaviour", "server"), CASES)
def test_every_shape_of_handler_is_captured_and_answers_as_before(
    shape: str, behaviour: Callable[..., Any], server: str
) -> None:
    seen, exchanges = ask(shape, behaviour, ["flights"], server=server)

    n_answers = 2 if shape == "unary_stream" else 1
    assert [item.model_name for item in seen.answers] == ["flights"] * n_answers
    assert seen.code == 0
    (exchange,) = exchanges
    assert exchange.status == 200
    assert exchange.request_id == f"{shape}-0".encode()
    assert exchange.target.endswith(b"?model=flights")
    request = ModelInferRequest.FromString(exchange.request_body)
    assert (request.model_name, request.id) == ("flights", f"{shape}-0")
    response = exchange.response_body
    if n_answers == 2:
        assert b"content-type: application/grpc\r\n" in exchange.response_head
        assert response[0] == 0
        assert response[: len(response) // 2] == response[len(response) // 2 :]
        response = response[5 : len(response) // 2]
    assert ModelInferResponse.FromString(response).model_version == "7"


@pytest.mark.parametrize(("shape", "behaviour", "server"), CASES)
@pytest.mark.parametrize(
    ("name", "code", "status", "details"),
    [
        ("missing", 5, 404, "no such model"),
        ("coded", 3, 400, "bad shape"),
        ("broken", 2, 500, "a secret"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_failures_are_captured_with_their_code_and_reach_the_caller(
    shape: str,
    behaviour: Callable[..., Any],
    server: str,
    name: str,
    code: int,
    status: int,
    details: str,
) -> None:
    seen, exchanges = ask(shape, behaviour, [name], server=server)

    assert (seen.code, details in seen.details) == (code, True)
    assert [(item.status, item.aborted_by) for item in exchanges] == [(status, "")]
    assert f"grpc-status: {code}\r\n".encode() in exchanges[0].response_head
    if name == "missing":
        assert seen.trailing["why"] == "gone"
        assert b"why: gone\r\n" in exchanges[0].response_head


@pytest.mark.parametrize(("shape", "behaviour", "server"), CASES)
@pytest.mark.parametrize("name", ["flights", "missing", "coded", "broken"])
def test_a_caller_without_an_id_is_told_the_one_of_the_event(
    shape: str, behaviour: Callable[..., Any], server: str, name: str
) -> None:
    def anonymous(request: Any) -> bytes:
        return bytes(ModelInferRequest(model_name=request.model_name).SerializeToString())

    kept = Kept()
    path = UNARY if shape == "unary_unary" else STREAM
    seen, (exchange,) = ask(shape, behaviour, [name], server=server, tap=kept, serialise=anonymous)

    told = {**seen.initial, **seen.trailing}["x-request-id"]
    assert exchange.request_id == told.encode()
    assert exchange.target.startswith(path.encode())


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ([("ce-id", "b"), ("x-request-id", "a")], b"a"),
        ([("seldon-puid", "c"), ("ce-id", "b")], b"b"),
        ([("seldon-puid", "c")], b"c"),
        ([("x-request-id", " ")], b"unary_unary-0"),
    ],
)
def test_the_id_is_the_callers_metadata_before_the_messages(
    metadata: list[tuple[str, str]], expected: bytes
) -> None:
    seen, (exchange,) = ask("unary_unary", unary_unary, ["flights"], metadata=metadata)

    assert exchange.request_id == expected
    assert "x-request-id" not in {**seen.initial, **seen.trailing}


def test_metadata_stands_in_the_heads_and_reaches_both_sides() -> None:
    seen, (exchange,) = ask(
        "unary_unary",
        unary_unary,
        ["flights"],
        metadata=[("traceparent", "00-aa-bb-01"), ("key-bin", b"\x01\x02")],
    )

    assert b"\r\ntraceparent: 00-aa-bb-01\r\n" in exchange.request_head
    assert b"\r\nkey-bin: AQI=\r\n" in exchange.request_head
    assert seen.trailing == {"behind": "1", "raw-bin": b"\x00\xff"}
    assert b"\r\nraw-bin: AP8=\r\n" in exchange.response_head


def test_marked_calls_and_other_methods_are_left_alone() -> None:
    seen, exchanges = ask(
        "unary_unary",
        unary_unary,
        ["flights"],
        metadata=[("sidelight-skip", "true")],
        n_exchanges=0,
    )

    assert [item.model_version for item in seen.answers] == ["7"]
    assert exchanges == []
    assert seen.initial == {}


class Broken(Kept):
    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where

    def wants(self, method: bytes, target: bytes, head: bytes) -> bool:
        if self._where == "wants":
            raise ValueError(self._where)
        return super().wants(method, target, head)

    def offer(self, exchange: Exchange) -> None:
        super().offer(exchange)
        raise ValueError(self._where)


@pytest.mark.parametrize(("shape", "behaviour", "server"), CASES)
@pytest.mark.parametrize("where", ["wants", "offer"])
def test_a_tap_that_raises_spoils_no_call(
    shape: str, behaviour: Callable[..., Any], server: str, where: str
) -> None:
    seen, _ = ask(shape, behaviour, ["flights"], server=server, tap=Broken(where), n_exchanges=0)

    assert seen.code == 0
    assert seen.answers[0].model_version == "7"


def test_a_request_that_is_garbage_is_captured_with_its_failure() -> None:
    def garbage(_: Any) -> bytes:
        return b"\x0a\xff\xff"

    seen, (exchange,) = ask("unary_unary", unary_unary, ["flights"], serialise=garbage)

    assert seen.code == 2
    assert (exchange.status, exchange.request_body) == (500, b"\x0a\xff\xff")


# A server counts a deadline from when the call came. Where that was late, it is told of the end
# before its own deadline, which is nothing but a caller that goes away. So there are more tries.
@pytest.mark.parametrize(
    ("timeouts_s", "status"), [((None,), 499), ((0.1, 0.2, 0.5, 1, 2, 4, 8), 504)]
)
def test_a_caller_that_goes_away_is_captured_once(
    timeouts_s: Sequence[float | None], status: int
) -> None:
    kept = Kept()
    n_tries = 0
    running = asyncio.Event()

    async def waits(request: Any, context: Any) -> Any:
        assert request.model_name == "slow"
        running.set()
        await asyncio.Event().wait()
        return context

    async def main() -> None:
        nonlocal n_tries
        server = grpc.aio.server(interceptors=[CaptureInterceptor(kept)])
        server.add_generic_rpc_handlers((Service("unary_unary", waits, UNARY),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            serialise = ModelInferRequest.SerializeToString
            for timeout_s in timeouts_s:
                n_tries += 1
                call = channel.unary_unary(UNARY, serialise)(
                    ModelInferRequest(model_name="slow"), timeout=timeout_s
                )
                if timeout_s is None:
                    await running.wait()
                    call.cancel()
                with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
                    await call
                if running.is_set():
                    await kept.wait_for(1)
                if any(item.status == status for item in kept.exchanges):
                    break
        await server.stop(None)

    asyncio.run(main())

    # Of a call that ended before it came to the server nothing is captured.
    assert 1 <= len(kept.exchanges) <= n_tries
    assert {item.status for item in kept.exchanges} - {499} == {status} - {499}
    assert kept.exchanges[0].aborted_by == "client"


def test_streams_in_one_call_become_an_exchange_for_each_request() -> None:
    seen, exchanges = ask("stream_stream", stream_stream, ["a", "b", "c"], n_exchanges=3)

    assert [item.model_name for item in seen.answers] == ["a", "b", "c"]
    assert [item.request_id for item in exchanges] == [
        b"stream_stream-0",
        b"stream_stream-1",
        b"stream_stream-2",
    ]
    bodies = [ModelInferResponse.FromString(item.response_body) for item in exchanges]
    assert [body.model_name for body in bodies] == ["a", "b", "c"]
