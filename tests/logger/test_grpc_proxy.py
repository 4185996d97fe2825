"""The gRPC proxy between real clients and servers: each side sees what it saw without it."""

import asyncio
import contextlib
import hashlib
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import uvloop

from sidelight.logger import Exchange
from sidelight.logger._grpc_frames import frames
from sidelight.logger._open_inference import (
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)
from sidelight.logger.grpc import GrpcLimits, GrpcProxy, serve_grpc

UNARY = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
OTHER = "/some.Service/Method"
DETAILS = "grpc-status-details-bin"


class Kept:
    """A tap that keeps what it is offered."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self._changed = asyncio.Condition()

    def wants(self, method: bytes, target: bytes, head: bytes) -> bool:
        assert (method, target[:1]) == (b"POST", b"/")
        return b"sidelight-skip: true" not in head

    def offer(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self._notifying = asyncio.ensure_future(self._notify())

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def wait_for(self, n_exchanges: int) -> list[Exchange]:
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(lambda: len(self.exchanges) >= n_exchanges)
        return self.exchanges


class Model(grpc.GenericRpcHandler):  # type: ignore[misc] # grpc has no types
    """A server that answers every method with one function over bytes."""

    def __init__(self, behaviour: Callable[..., Any], shape: str = "stream_stream") -> None:
        self._handler = getattr(grpc, f"{shape}_rpc_method_handler")(behaviour)

    def service(self, _: Any) -> Any:
        return self._handler


class Setup:
    """A model, the proxy before it, and a channel to each."""

    def __init__(self) -> None:
        self.tap = Kept()
        self.proxy: GrpcProxy
        self.channel: Any
        self.model = ""


async def run(
    behaviour: Callable[..., Any],
    check: Callable[[Setup], Awaitable[None]],
    *,
    shape: str = "stream_stream",
    limits: GrpcLimits | None = None,
    listen: str = "127.0.0.1:0",
    upstream: str = "127.0.0.1:0",
) -> None:
    model = grpc.aio.server(
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_metadata_size", 1 << 20)]
    )
    model.add_generic_rpc_handlers((Model(behaviour, shape),))
    port = model.add_insecure_port(upstream)
    await model.start()
    address = upstream if upstream.startswith("unix:") else f"127.0.0.1:{port}"
    setup = Setup()
    setup.model = address
    setup.proxy = await serve_grpc(listen, address, setup.tap, limits=limits)
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_metadata_size", 1 << 20)]
    try:
        async with (
            asyncio.timeout(120),
            grpc.aio.insecure_channel(setup.proxy.address, options=options) as setup.channel,
        ):
            await check(setup)
    finally:
        await setup.proxy.close()
        await model.stop(None)


async def seen(address: str, path: str, messages: list[bytes], **call: Any) -> dict[str, Any]:
    """Call, and return all that a client can see of it."""
    # In a thread: a stream of grpc.aio loses its status when it writes while the call ends.
    return await asyncio.to_thread(_seen, address, path, messages, **call)


def _seen(address: str, path: str, messages: list[bytes], **call: Any) -> dict[str, Any]:
    options = [("grpc.max_metadata_size", 1 << 20)]
    answers = []
    with grpc.insecure_channel(address, options=options) as channel:
        stream = channel.stream_stream(path)(iter(messages), **call)
        with contextlib.suppress(grpc.RpcError):
            answers.extend(stream)
        return {
            "answers": answers,
            "code": stream.code(),
            "details": stream.details(),
            "initial": tuple(stream.initial_metadata()),
            "trailing": tuple(stream.trailing_metadata()),
        }


async def echo(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    """Answer as the metadata says."""
    said = dict(context.invocation_metadata())
    if "early" in said:
        await context.send_initial_metadata((("early", said["early"]), ("first-bin", b"\xfe\0")))
    if "late" in said:
        context.set_trailing_metadata((("late", said["late"]), (DETAILS, b"\x08\x05\x12\x01x")))
    if said.get("fails") == "first":
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "nein: ä %\n", ((DETAILS, b"\1"),))
    async for message in requests:
        yield message + repr(context.time_remaining() is not None).encode()
        yield repr(sorted(item for item in said.items() if item[0][0] == "m")).encode()
    if said.get("fails") == "last":
        await context.abort(grpc.StatusCode.DATA_LOSS, "at the end")


CALLS = [
    pytest.param([], [], id="nothing"),
    pytest.param([b""], [], id="an empty message"),
    pytest.param([b"a", b"b", b"c"], [("m", "1"), ("m-bin", b"\x00\xff\n")], id="metadata"),
    pytest.param([b"a"], [("early", "1"), ("late", "2")], id="metadata of answers"),
    pytest.param([b"a"], [("fails", "first")], id="fails first"),
    pytest.param([b"a"], [("fails", "first"), ("early", "1")], id="fails after its beginning"),
    pytest.param([b"a"], [("fails", "last"), ("late", "2")], id="fails last"),
    pytest.param([b"a"], [("m-long", "x" * 100_000)], id="long metadata"),
]


@pytest.mark.parametrize("loop", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("path", [OTHER, STREAM])
@pytest.mark.parametrize(("messages", "metadata"), CALLS)
def test_a_caller_sees_what_it_sees_without_the_proxy(
    messages: list[bytes], metadata: list[Any], path: str, loop: Callable[..., Any]
) -> None:
    async def check(setup: Setup) -> None:
        asked = [("x-request-id", "given"), *metadata]
        for timeout in (None, 100):
            call = {"metadata": asked, "timeout": timeout}
            through = await seen(setup.proxy.address, path, messages, **call)
            without = await seen(setup.model, path, messages, **call)
            if ("fails", "first") in metadata and ("early", "1") in metadata:
                # When the end comes right behind the beginning, grpc.aio may give an empty
                # beginning to the proxy, too.
                del through["initial"], without["initial"]
            assert through == without

    loop(run(echo, check))


@pytest.mark.parametrize("path", [UNARY, "/inference.GRPCInferenceService/ServerLive"])
@pytest.mark.parametrize("kind", ["answer", "early failure", "failure", "empty"])
def test_a_caller_of_one_message_sees_what_it_sees_without_the_proxy(path: str, kind: str) -> None:
    async def behave(request: bytes, context: Any) -> bytes:
        if kind == "failure":
            await context.send_initial_metadata((("early", "1"),))
        if kind != "empty":
            context.set_trailing_metadata((("late", "2"), (DETAILS, b"\x00\x01")))
        if kind.endswith("failure"):
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        if kind == "empty":
            return b""
        context.set_details("said with OK")
        said = [item for item in context.invocation_metadata() if item[0] != "user-agent"]
        return request * 2 + repr([tuple(item) for item in said]).encode()

    async def check(setup: Setup) -> None:
        call = {"metadata": [("x-request-id", "given"), ("m", "1"), ("m-bin", b"\0\xff")]}
        through = await seen(setup.proxy.address, path, [b"abc"], **call)
        assert through == await seen(setup.model, path, [b"abc"], **call)
        assert (through["code"] is grpc.StatusCode.OK) == (not kind.endswith("failure"))
        assert len(setup.tap.exchanges) == (path == UNARY)

    asyncio.run(run(behave, check, shape="unary_unary"))


def request(name: str = "flights", number: str = "", **rest: Any) -> bytes:
    return bytes(ModelInferRequest(model_name=name, id=number, **rest).SerializeToString())


def response(number: str = "", **rest: Any) -> bytes:
    return bytes(ModelInferResponse(id=number, **rest).SerializeToString())


def test_an_inference_is_captured_as_it_went_by() -> None:
    async def behave(_: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("late", "2"),))
        return response("a", model_name="flights")

    async def check(setup: Setup) -> None:
        asked = request(number="a", model_version="3 ä")
        await setup.channel.unary_unary(UNARY)(
            asked, metadata=[("traceparent", "00-a-b-01"), ("x-tenant", "red")]
        )
        (exchange,) = await setup.tap.wait_for(1)

        assert exchange.method == b"POST"
        assert exchange.target == UNARY.encode() + b"?model=flights&version=3%20%C3%A4"
        head = exchange.request_head
        assert head.startswith(
            b"POST %b HTTP/1.1\r\ncontent-type: application/protobuf\r\n" % (exchange.target)
        )
        assert b"\r\ntraceparent: 00-a-b-01\r\nx-tenant: red\r\n" in head
        assert head.endswith(b"\r\n\r\n")
        assert exchange.request_body == asked
        assert exchange.response_body == response("a", model_name="flights")
        assert exchange.response_head.startswith(b"HTTP/1.1 200\r\n")
        assert b"\r\ngrpc-status: 0\r\nlate: 2\r\n\r\n" in exchange.response_head
        assert (exchange.status, exchange.request_id, exchange.aborted_by) == (200, b"a", "")
        assert 0 < exchange.added_s < exchange.latency_ms / 1e3
        assert exchange.started_ns < exchange.finished_ns
        assert setup.proxy.counts.captured_bytes == 0

    asyncio.run(run(behave, check, shape="unary_unary"))


def test_a_marked_call_is_passed_on_and_not_captured() -> None:
    async def behave(_: bytes, __: Any) -> bytes:
        return b"answer"

    async def check(setup: Setup) -> None:
        marked = setup.channel.unary_unary(UNARY)(b"", metadata=[("sidelight-skip", "true")])
        assert await marked == b"answer"
        assert tuple(await marked.initial_metadata()) == ()
        await setup.channel.unary_unary(UNARY)(b"")
        assert len(await setup.tap.wait_for(1)) == 1

    asyncio.run(run(behave, check, shape="unary_unary"))


@pytest.mark.parametrize("fails", [False, True], ids=["answer", "failure"])
@pytest.mark.parametrize("path", [UNARY, STREAM])
def test_a_caller_without_an_id_is_told_the_one_of_the_event(path: str, fails: bool) -> None:  # noqa: FBT001 - a parameter
    async def behave(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for _ in requests:
            if fails:
                await context.abort(grpc.StatusCode.NOT_FOUND, "none")
            yield response()

    async def check(setup: Setup) -> None:
        through = await seen(setup.proxy.address, path, [request()])
        (exchange,) = await setup.tap.wait_for(1)

        assert through["trailing" if fails else "initial"] == (
            ("x-request-id", exchange.request_id.decode()),
        )

    asyncio.run(run(behave, check))


def test_an_id_that_the_model_answers_with_is_the_one_of_the_event() -> None:
    async def behave(_: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("x-request-id", "theirs"),))
        return b""

    async def check(setup: Setup) -> None:
        call = setup.channel.unary_unary(UNARY)(request())
        await call
        (exchange,) = await setup.tap.wait_for(1)

        assert tuple(await call.initial_metadata()) == (("x-request-id", "theirs"),)
        assert exchange.request_id == b"theirs"

    asyncio.run(run(behave, check, shape="unary_unary"))


@pytest.mark.parametrize("path", [UNARY, STREAM, OTHER])
def test_cancellation_reaches_the_model_and_is_captured(path: str) -> None:
    running, ended = asyncio.Event(), asyncio.Event()

    async def behave(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        async for message in requests:
            running.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            yield message

    async def check(setup: Setup) -> None:
        call = setup.channel.stream_stream(path)()
        await call.write(request(number="1"))
        await running.wait()
        call.cancel()
        await ended.wait()
        if path == OTHER:
            return
        (exchange,) = await setup.tap.wait_for(1)
        assert (exchange.status, exchange.aborted_by) == (499, "client")
        assert b"grpc-status: 1\r\n" in exchange.response_head

    asyncio.run(run(behave, check))


@pytest.mark.parametrize("path", [UNARY, STREAM])
def test_a_deadline_reaches_the_model_and_ends_the_call(path: str) -> None:
    left: list[float | None] = []

    async def behave(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        left.append(context.time_remaining())
        async for message in requests:
            await asyncio.Event().wait()
            yield message

    async def check(setup: Setup) -> None:
        # The proxy counts the deadline from when the call came. Where that was late, it is told of
        # the end before, which is nothing but a caller that goes away. So there are more tries.
        for timeout_s in (0.3, 0.6, 1, 2, 4, 8):
            through = await seen(setup.proxy.address, path, [request()], timeout=timeout_s)
            assert through["code"] is grpc.StatusCode.DEADLINE_EXCEEDED
            assert all(each is not None and each < timeout_s + 0.1 for each in left)
            if left:
                await setup.tap.wait_for(1)
            statuses = {item.status for item in setup.tap.exchanges}
            if 504 in statuses:
                break
        assert statuses - {499} == {504}

    asyncio.run(run(behave, check))


def test_messages_are_passed_on_as_they_come() -> None:
    async def check(setup: Setup) -> None:
        call = setup.channel.stream_stream(OTHER)()
        for number in range(3):
            await call.write(b"%d" % number)
            # The next message is sent only after this answer.
            assert await call.read() == b"%dFalse" % number
            await call.read()
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF

    asyncio.run(run(echo, check))


def test_metadata_is_passed_on_before_the_first_message() -> None:
    go_on = asyncio.Event()

    async def behave(_: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await context.send_initial_metadata(())
        await go_on.wait()
        yield b"done"

    async def check(setup: Setup) -> None:
        call = setup.channel.stream_stream(OTHER)()
        assert tuple(await call.initial_metadata()) == ()
        go_on.set()
        assert await call.read() == b"done"

    asyncio.run(run(behave, check))


def test_messages_have_no_largest_size_and_what_is_cut_has_a_digest() -> None:
    async def behave(message: bytes, _: Any) -> bytes:
        return message[::-1]

    async def check(setup: Setup) -> None:
        sent = request(raw_input_contents=[bytes(range(256)) * 40_000])
        assert await setup.channel.unary_unary(UNARY)(sent) == sent[::-1]
        (exchange,) = await setup.tap.wait_for(1)

        assert (exchange.request_body, exchange.response_body) == (sent[:1000], sent[:-1001:-1])
        assert exchange.request_cut == exchange.response_cut == len(sent) - 1000
        assert exchange.request_digest == hashlib.sha256(sent).digest()
        assert exchange.response_digest == hashlib.sha256(sent[::-1]).digest()
        assert exchange.target.endswith(b"?model=flights")
        assert setup.proxy.counts.captured_bytes == 0

    limits = GrpcLimits(capture_limit=1000)
    asyncio.run(run(behave, check, shape="unary_unary", limits=limits))


def test_calls_run_side_by_side() -> None:
    n_calls = 200
    all_there = asyncio.Event()
    count = 0

    async def behave(message: bytes, _: Any) -> bytes:
        nonlocal count
        count += 1
        if count == n_calls:
            all_there.set()
        await all_there.wait()
        return message

    async def check(setup: Setup) -> None:
        call = setup.channel.unary_unary(UNARY)
        answers = await asyncio.gather(
            *[call(request(number=str(number))) for number in range(n_calls)]
        )
        assert answers == [request(number=str(number)) for number in range(n_calls)]
        exchanges = await setup.tap.wait_for(n_calls)
        assert {item.request_id for item in exchanges} == {b"%d" % n for n in range(n_calls)}
        assert setup.proxy.counts.calls == n_calls
        assert setup.proxy.counts.in_flight == 0

    asyncio.run(run(behave, check, shape="unary_unary"))


@pytest.mark.parametrize("path", [UNARY, STREAM])
def test_a_model_that_is_down_looks_as_it_looks_without_the_proxy(path: str) -> None:
    async def main() -> None:
        tap = Kept()
        # Bound, so that nobody else has it, and not listening.
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            proxy = await serve_grpc("127.0.0.1:0", address, tap)
            call = {"metadata": [("x-request-id", "given")]}
            through = await seen(proxy.address, path, [request()], **call)
            without = await seen(address, path, [request()], **call)
        assert through == without
        assert through["code"] is grpc.StatusCode.UNAVAILABLE
        assert proxy.counts.upstream_errors == 1
        await proxy.close()
        if path == UNARY:
            assert [item.status for item in tap.exchanges] == [503]

    asyncio.run(main())


def test_a_model_that_comes_back_is_found() -> None:
    async def behave(message: bytes, _: Any) -> bytes:
        return message

    async def main() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        proxy = await serve_grpc("127.0.0.1:0", f"127.0.0.1:{port}", Kept())
        async with asyncio.timeout(120), grpc.aio.insecure_channel(proxy.address) as channel:
            call = channel.unary_unary(UNARY)
            with pytest.raises(grpc.aio.AioRpcError):
                await call(b"")
            model = grpc.aio.server()
            model.add_generic_rpc_handlers((Model(behave, "unary_unary"),))
            model.add_insecure_port(f"127.0.0.1:{port}")
            await model.start()
            answer = None
            while answer is None:
                try:
                    answer = await call(b"here")
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.02)
            assert answer == b"here"
        await proxy.close()
        await model.stop(None)

    asyncio.run(main())


def test_a_model_that_dies_in_the_middle_ends_the_call() -> None:
    async def main() -> None:
        tap = Kept()
        running = asyncio.Event()

        async def behave(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
            async for _ in requests:
                yield response("1", model_name="flights")
                running.set()
                await asyncio.Event().wait()

        model = grpc.aio.server()
        model.add_generic_rpc_handlers((Model(behave),))
        port = model.add_insecure_port("127.0.0.1:0")
        await model.start()
        proxy = await serve_grpc("127.0.0.1:0", f"127.0.0.1:{port}", tap)
        async with asyncio.timeout(120), grpc.aio.insecure_channel(proxy.address) as channel:
            call = channel.stream_stream(STREAM)()
            await call.write(request(number="1"))
            assert await call.read() == response("1", model_name="flights")
            await running.wait()
            await model.stop(None)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            (exchange,) = await tap.wait_for(1)
        await proxy.close()
        assert exchange.status == 503
        assert exchange.response_body == response("1", model_name="flights")

    asyncio.run(main())


def test_unix_sockets_serve_on_both_sides(tmp_path: Path) -> None:
    async def behave(message: bytes, _: Any) -> bytes:
        return message

    async def check(setup: Setup) -> None:
        assert setup.proxy.address == f"unix:{tmp_path}/p"
        assert await setup.channel.unary_unary(UNARY)(b"x") == b"x"

    asyncio.run(
        run(
            behave,
            check,
            shape="unary_unary",
            listen=f"unix:{tmp_path}/p",
            upstream=f"unix:{tmp_path}/m",
        )
    )


def test_tls_is_spoken_on_both_sides(tmp_path: Path) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    key, cert = ((tmp_path / name).read_bytes() for name in ("key.pem", "cert.pem"))
    server_credentials = grpc.ssl_server_credentials([(key, cert)])
    credentials = grpc.ssl_channel_credentials(cert)

    async def behave(message: bytes, _: Any) -> bytes:
        return message

    async def main() -> None:
        model = grpc.aio.server()
        model.add_generic_rpc_handlers((Model(behave, "unary_unary"),))
        port = model.add_secure_port("localhost:0", server_credentials)
        await model.start()
        proxy = await serve_grpc(
            "localhost:0",
            f"localhost:{port}",
            Kept(),
            credentials=credentials,
            server_credentials=server_credentials,
        )
        async with grpc.aio.secure_channel(proxy.address, credentials) as channel:
            assert await channel.unary_unary(UNARY)(b"secret") == b"secret"
        await proxy.close()
        await model.stop(None)

    asyncio.run(main())


def test_an_address_in_use_is_refused() -> None:
    async def main() -> None:
        first = await serve_grpc("127.0.0.1:0", "127.0.0.1:1", Kept())
        try:
            with pytest.raises(OSError, match="listen: expected an address that is free"):
                await serve_grpc(first.address, "127.0.0.1:1", Kept())
        finally:
            await first.close()

    asyncio.run(main())


@pytest.mark.parametrize(("grace_s", "n_cut"), [(100.0, 0), (0.2, 1)])
def test_draining_waits_for_calls_in_work_and_cuts_the_rest(grace_s: float, n_cut: int) -> None:
    running, go_on = asyncio.Event(), asyncio.Event()

    async def behave(message: bytes, _: Any) -> bytes:
        running.set()
        await go_on.wait()
        return message

    async def check(setup: Setup) -> None:
        call = setup.channel.unary_unary(UNARY)(b"x")
        await running.wait()
        draining = asyncio.create_task(setup.proxy.drain(grace_s))
        if n_cut:
            with pytest.raises(grpc.aio.AioRpcError):
                await call
        else:
            go_on.set()
            assert await call == b"x"
        assert await draining == n_cut

    asyncio.run(run(behave, check, shape="unary_unary"))


def test_a_stream_becomes_an_exchange_for_each_request() -> None:
    async def behave(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        names = [ModelInferRequest.FromString(message).id async for message in requests]
        for name in (names[1], names[0], names[1]):
            inner = ModelInferResponse(id=name, model_name="flights")
            yield ModelStreamInferResponse(infer_response=inner).SerializeToString()

    async def check(setup: Setup) -> None:
        asked = [request(number=number) for number in ("a", "b", "none")]
        await seen(setup.proxy.address, STREAM, asked, metadata=[("ce-id", "call")])
        exchanges = await setup.tap.wait_for(3)

        assert [item.request_id for item in exchanges] == [b"a", b"b", b"none"]
        assert [item.request_body for item in exchanges] == asked
        first, second, third = (item.response_body for item in exchanges)
        assert first == response("a", model_name="flights")
        assert [item.message for item in frames(second)] == [
            response("b", model_name="flights")
        ] * 2
        assert third == b""
        heads = [item.response_head for item in exchanges]
        assert b"content-type: application/protobuf\r\n" in heads[0]
        assert b"content-type: application/grpc\r\n" in heads[1]
        assert not any(b"ce-id" in item.request_head for item in exchanges)

    asyncio.run(run(behave, check))


@pytest.mark.parametrize("path", [OTHER, STREAM])
def test_a_call_that_is_refused_while_messages_come_keeps_its_status(path: str) -> None:
    async def behave(_: AsyncIterator[bytes], context: Any) -> None:
        await context.send_initial_metadata((("early", "1"),))
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no", ((DETAILS, b"1"),))

    async def check(setup: Setup) -> None:
        for _ in range(100):
            through = await seen(setup.proxy.address, path, [request()] * 3)
            assert through["code"] is grpc.StatusCode.PERMISSION_DENIED
            assert dict(through["trailing"])[DETAILS] == b"1"

    asyncio.run(run(behave, check))


def test_what_is_cut_is_offered_before_draining_ends() -> None:
    async def behave(message: bytes, _: Any) -> bytes:
        return message

    async def check(setup: Setup) -> None:
        sent = bytes(20_000_000)
        await setup.channel.unary_unary(UNARY)(sent)
        await setup.proxy.drain(5)

        (exchange,) = setup.tap.exchanges
        assert exchange.request_digest == exchange.response_digest == hashlib.sha256(sent).digest()
        assert len(exchange.request_body) + exchange.request_cut == len(sent)

    asyncio.run(run(behave, check, shape="unary_unary"))
