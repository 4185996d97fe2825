import asyncio
import contextlib
import json
import shutil
import ssl
import subprocess
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sidelight.logger._emitter_event import CapturedEvent
from sidelight.logger._sink import Delivery
from sidelight.logger._sink_connection import _seconds
from sidelight.logger._sink_files import HeaderFiles, TlsFiles
from sidelight.logger._sink_http import HttpSink

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
EVENTS = [
    CapturedEvent(
        b'{"id":"%d","datacontenttype":"application/json"' % n, b"[%d]" % n, is_embedded=True
    )
    for n in range(3)
]


@pytest.fixture(autouse=True, params=["asyncio", "uvloop"])
def _loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test on both loops; their transports and errors differ."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(work)

    monkeypatch.setattr(asyncio, "run", run)
    # No machine is so slow that it would be reached where it is not the subject.
    init: Any = HttpSink.__init__
    monkeypatch.setitem(init.__kwdefaults__, "timeout_s", 100.0)


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    line = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    return head, await reader.readexactly(int(line.split(b":")[1]))


def against(peer: Peer, use: Callable[[str], Awaitable[Any]]) -> Any:
    """Run ``use`` with the address of a server that treats each connection by ``peer``."""

    async def run() -> Any:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await peer(reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            return await use(f"http://127.0.0.1:{port}/events?x=1")
        finally:
            server.close()

    return asyncio.run(run())


def answering(*answers: bytes, seen: list[tuple[bytes, bytes]] | None = None) -> Peer:
    left = list(answers)

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while left:
            request = await read_request(reader)
            if seen is not None:
                seen.append(request)
            writer.write(left.pop(0))
            await writer.drain()

    return peer


def delivered(peer: Peer, **options: Any) -> Delivery:
    async def use(url: str) -> Delivery:
        sink = HttpSink(url, **options)
        try:
            return await sink.send(EVENTS)
        finally:
            await sink.close()

    delivery = against(peer, use)
    assert isinstance(delivery, Delivery)
    return delivery


def test_a_batch_is_one_request_with_every_event_in_order() -> None:
    seen: list[tuple[bytes, bytes]] = []

    assert delivered(answering(OK, seen=seen), headers={"Authorization": "Bearer t"}) == Delivery(
        n_taken=3
    )
    ((head, body),) = seen
    assert head.startswith(b"POST /events?x=1 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nAuthorization: Bearer t\r\n" in head
    assert b"\r\ncontent-type: application/cloudevents-batch+json\r\n" in head
    assert [(each["id"], each["data"]) for each in json.loads(body)] == [
        ("0", [0]),
        ("1", [1]),
        ("2", [2]),
    ]


def test_the_binary_mode_is_one_request_for_each_event_on_one_connection() -> None:
    seen: list[tuple[bytes, bytes]] = []
    n_connections = 0
    answer = answering(OK, OK, OK, seen=seen)

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal n_connections
        n_connections += 1
        await answer(reader, writer)

    assert delivered(peer, mode="binary") == Delivery(n_taken=3)
    assert n_connections == 1
    assert [body for _, body in seen] == [b"[0]", b"[1]", b"[2]"]
    assert b"\r\nce-id: 2\r\ncontent-type: application/json\r\n" in seen[2][0]


def test_the_binary_mode_says_how_far_it_came() -> None:
    bad = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"

    assert delivered(answering(OK, bad), mode="binary") == Delivery(
        n_taken=1, n_refused=1, failure="status_400"
    )


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", id="no content"),
        pytest.param(b"HTTP/1.1 202 A\r\nContent-Length: 9\r\n\r\nrubbish\x00\xff", id="body"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf", id="half a body"),
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall", id="until the end"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\nold", id="old"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + OK, id="continue first"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            id="chunks",
        ),
    ],
)
def test_any_2xx_is_success_whatever_the_body(answer: bytes) -> None:
    assert delivered(answering(answer)) == Delivery(n_taken=3)


def test_an_endless_answer_is_cut_off_and_counts_by_its_status() -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    assert delivered(peer) == Delivery(n_taken=3)


@pytest.mark.parametrize(
    ("status", "n_refused"),
    [(400, 3), (413, 3), (415, 3), (401, 0), (403, 0), (404, 0), (408, 0), (409, 0), (429, 0),
     (500, 0), (503, 0), (302, 0)],
)  # fmt: skip
def test_a_verdict_on_the_events_is_told_from_a_failure_that_passes(
    status: int, n_refused: int
) -> None:
    answer = b"HTTP/1.1 %d No\r\nContent-Length: 2\r\nRetry-After: 7\r\n\r\nno" % status

    assert delivered(answering(answer)) == Delivery(
        n_taken=0, n_refused=n_refused, failure=f"status_{status}", retry_after_s=7.0
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, None), (b"", None), (b"3", 3.0), (b"soon", None), (b"-1", None), ("²".encode(), None),
     (b"9" * 400, float("inf")), (b"Sun, 06 Nov %b 08:49:37 GMT" % (b"9" * 20), None),
     (b"Wed, 21 Oct 2015 07:28:00 GMT", 0.0)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(value: bytes | None, expected: float | None) -> None:
    assert _seconds(value) == expected


def test_a_date_to_come_is_so_many_seconds_away() -> None:
    seconds = _seconds(b"Wed, 21 Oct 2099 07:28:00 GMT")

    assert seconds is not None
    assert seconds > 1e9


@pytest.mark.parametrize(
    "answer",
    [b"SSH-2.0-OpenSSH_9.6\r\n", b"\x15\x03\x01\x00\x02\x02\x16" * 3, b"HTTP/1.1 abc\r\n\r\n"],
)
def test_an_answer_that_is_not_http_is_garbage(answer: bytes) -> None:
    assert delivered(answering(answer)).failure == "garbage"


def test_a_change_of_protocol_is_no_answer() -> None:
    answer = b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"

    assert delivered(answering(answer), timeout_s=0.3).failure in {"garbage", "timeout", "reset"}


def test_a_closed_connection_is_a_reset() -> None:
    assert delivered(answering()).failure == "reset"


def test_a_closed_port_is_refused() -> None:
    async def use() -> Delivery:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return await HttpSink(f"http://127.0.0.1:{port}/").send(EVENTS)

    assert asyncio.run(use()).failure == "refused"


def test_a_silent_sink_costs_the_timeout() -> None:
    async def peer(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    assert delivered(peer, timeout_s=0.2).failure == "timeout"


def test_a_sink_that_dribbles_its_answer_costs_the_timeout() -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for byte in OK * 9:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    assert delivered(peer, timeout_s=0.2).failure == "timeout"


def test_a_kept_connection_that_the_sink_closed_is_replaced_at_once() -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await writer.drain()

    async def use(url: str) -> list[Delivery]:
        sink = HttpSink(url)
        try:
            return [await sink.send(EVENTS) for _ in range(4)]
        finally:
            await sink.close()

    assert against(peer, use) == [Delivery(n_taken=3)] * 4


def test_a_cancelled_delivery_leaves_a_usable_sink() -> None:
    hanging = asyncio.Event()
    n_requests = 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal n_requests
        await read_request(reader)
        n_requests += 1
        if n_requests == 1:
            hanging.set()
            await reader.read()
            return
        writer.write(OK)
        await writer.drain()

    async def use(url: str) -> Delivery:
        sink = HttpSink(url)
        first = asyncio.create_task(sink.send(EVENTS))
        await hanging.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        try:
            return await sink.send(EVENTS)
        finally:
            await sink.close()

    assert against(peer, use) == Delivery(n_taken=3)


@pytest.mark.parametrize(
    "url", ["collector:8090", "ftp://host/", "http://", "http://user:secret@host/"]
)
def test_an_address_that_cannot_be_used_is_refused_without_its_secret(url: str) -> None:
    with pytest.raises(ValueError, match="expected http") as caught:
        HttpSink(url)

    assert "secret" not in str(caught.value)


class Broker:
    """A receiver that answers each request by the script for its id, in order."""

    def __init__(self, script: dict[str, list[int]], *, per_connection: int = 1000) -> None:
        self.script = script
        self.per_connection = per_connection
        self.came: list[str] = []
        self.taken: list[str] = []
        self.n_connections = 0
        self.n_waiting: list[int] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.n_connections += 1
        for n in range(self.per_connection):
            head, _ = await read_request(reader)
            # What came with it: the requests that are on their way at once.
            self.n_waiting.append(reader._buffer.count(b"POST"))  # type: ignore[attr-defined]
            name = head.partition(b"ce-id: ")[2].partition(b"\r\n")[0].decode()
            left = self.script.get(name, [])
            status = left.pop(0) if left else 200
            self.came.append(name)
            if status == 200:
                self.taken.append(name)
            more = b"Connection: close\r\n" if n == self.per_connection - 1 else b""
            writer.write(b"HTTP/1.1 %d X\r\n%bContent-Length: 0\r\n\r\n" % (status, more))
            await writer.drain()


def numbered(n_events: int) -> list[CapturedEvent]:
    return [CapturedEvent(b'{"id":"%d"' % n, b"%d" % n) for n in range(n_events)]


def all_delivered(broker: Broker, events: list[CapturedEvent], **options: Any) -> list[Delivery]:
    """Send as the emitter does, until everything is taken or refused."""

    async def use(url: str) -> list[Delivery]:
        sink = HttpSink(url, mode="binary", **options)
        rest, said = events, []
        while rest:
            said.append(await sink.send(rest))
            rest = rest[said[-1].n_taken + said[-1].n_refused :]
        await sink.close()
        return said

    found = against(broker, use)
    assert isinstance(found, list)
    return found


def test_ever_more_requests_are_on_their_way_at_once_and_arrive_in_order() -> None:
    broker = Broker({})

    said = all_delivered(broker, numbered(200), max_in_flight=16)

    assert said == [Delivery(n_taken=200)]
    assert broker.taken == [str(n) for n in range(200)]
    assert broker.n_connections == 1
    assert 4 < max(broker.n_waiting) < 16


def test_with_one_in_flight_a_request_waits_for_the_answer_before_it() -> None:
    broker = Broker({"3": [503]})

    said = all_delivered(broker, numbered(9), max_in_flight=1)

    assert max(broker.n_waiting) == 0
    assert broker.taken == [str(n) for n in range(9)]
    assert [each.n_taken for each in said] == [3, 6]


@pytest.mark.parametrize("status", [503, 429, 400])
def test_what_was_taken_behind_a_failure_does_not_come_twice(status: int) -> None:
    # A verdict stays what it is; what passes does so.
    broker = Broker({"40": [status] * 2, "43": [status] * (9 if status == 400 else 1)})

    said = all_delivered(broker, numbered(100), max_in_flight=16)

    is_verdict = status == 400
    lost = ["40", "43"] if is_verdict else []
    assert sorted(broker.taken, key=int) == [str(n) for n in range(100) if str(n) not in lost]
    assert sum(each.n_taken for each in said) == 100 - len(lost)
    assert sum(each.n_refused for each in said) == len(lost)
    assert {each.failure for each in said} == {f"status_{status}", ""}
    if not is_verdict:
        # Only what failed comes late, and behind the window that it was in.
        late = [name for name in broker.taken if name not in {"40", "43"}]
        assert late == sorted(late, key=int)
        assert broker.taken.index("43") < 43 + 20


def test_a_receiver_that_closes_after_some_answers_gets_the_rest_on_a_new_connection() -> None:
    broker = Broker({}, per_connection=5)

    said = all_delivered(broker, numbered(60))

    assert said == [Delivery(n_taken=60)]
    assert broker.taken == [str(n) for n in range(60)]
    assert broker.n_connections == 12


def test_equal_events_in_one_window_are_sent_and_counted_each() -> None:
    broker = Broker({})
    events = [numbered(1)[0]] * 20

    assert all_delivered(broker, events) == [Delivery(n_taken=20)]
    assert broker.taken == ["0"] * 20


def test_a_reset_in_the_middle_of_a_window_says_how_far_it_came() -> None:
    seen: list[tuple[bytes, bytes]] = []

    async def use(url: str) -> tuple[Delivery, Delivery]:
        sink = HttpSink(url, mode="binary")
        first = await sink.send(numbered(7))
        second = await sink.send(numbered(7)[first.n_taken :])
        await sink.close()
        return first, second

    n_connections = 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal n_connections
        n_connections += 1
        await answering(*[OK] * (5 if n_connections == 1 else 0), seen=seen)(reader, writer)

    assert against(peer, use) == (
        Delivery(n_taken=5, failure="reset"),
        Delivery(n_taken=0, failure="reset"),
    )
    assert [body for _, body in seen] == [b"0", b"1", b"2", b"3", b"4"]


def test_a_header_from_a_file_is_renewed_with_the_file(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("Bearer one\n")
    seen: list[tuple[bytes, bytes]] = []

    async def use(url: str) -> None:
        sink = HttpSink(url, header_files={"Authorization": token})
        await sink.send(EVENTS)
        token.write_text("Bearer another\n")
        await sink.send(EVENTS)
        token.unlink()
        await sink.send(EVENTS)
        await sink.close()

    against(answering(OK, OK, OK, seen=seen), use)

    assert [head.partition(b"Authorization: ")[2].partition(b"\r\n")[0] for head, _ in seen] == [
        b"Bearer one",
        b"Bearer another",
        b"Bearer another",
    ]


@pytest.mark.parametrize("text", ["", "\n", "a\r\nX-Other: b"])
def test_a_file_that_holds_no_value_of_a_header_is_refused(tmp_path: Path, text: str) -> None:
    place = tmp_path / "token"
    with pytest.raises(ValueError, match="header X: expected a file"):
        HeaderFiles({"X": place})
    place.write_text(text)

    with pytest.raises(ValueError, match="header X: expected one line"):
        HeaderFiles({"X": place})


def test_a_header_cannot_smuggle_another() -> None:
    with pytest.raises(ValueError, match="line break"):
        HttpSink("http://host/", headers={"X": "a\r\nY: b"})


def test_https_has_its_port_and_checks_certificates() -> None:
    sink = HttpSink("https://collector/events")

    assert sink._port == 443
    assert isinstance(sink._tls, TlsFiles)
    assert sink._tls.context().check_hostname


def test_a_sink_without_tls_behind_https_is_said_so() -> None:
    async def use(url: str) -> Delivery:
        return await HttpSink(url.replace("http:", "https:"), timeout_s=0.3).send(EVENTS)

    delivery = against(answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), use)

    assert delivery.failure in {"tls", "reset", "timeout"}


def certificate(folder: Path, name: str, host: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """Make a certificate that vouches for itself, and its key."""
    made, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-subj", f"/CN={name}", "-addext", f"subjectAltName={host}",
         "-days", "2", "-keyout", str(key), "-out", str(made)],
        check=True, capture_output=True,
    )  # fmt: skip
    return made, key


def over_tls(
    server_side: ssl.SSLContext, use: Callable[[str], Awaitable[list[Delivery]]]
) -> list[Delivery]:
    peer = answering(OK, OK)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await peer(reader, writer)
        writer.close()

    async def run() -> list[Delivery]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_side)
        port = server.sockets[0].getsockname()[1]
        try:
            return await use(f"https://127.0.0.1:{port}/")
        finally:
            server.close()

    return asyncio.run(run())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes the certificate")
@pytest.mark.parametrize("is_trusted", [True, False])
def test_a_certificate_is_checked(tmp_path: Path, *, is_trusted: bool) -> None:
    made, key = certificate(tmp_path, "localhost")
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(made, key)

    async def use(url: str) -> list[Delivery]:
        sink = HttpSink(url, ca_file=made if is_trusted else None)
        try:
            return [await sink.send(EVENTS) for _ in range(2)]
        finally:
            await sink.close()

    assert over_tls(server_side, use) == (
        [Delivery(n_taken=3)] * 2 if is_trusted else [Delivery(n_taken=0, failure="tls")] * 2
    )


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes the certificate")
def test_our_own_certificate_is_shown_and_read_again_when_it_is_renewed(tmp_path: Path) -> None:
    served, served_key = certificate(tmp_path, "served", "DNS:broker.example")
    ours, key = certificate(tmp_path, "ours")
    wrong, wrong_key = certificate(tmp_path, "wrong")
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(served, served_key)
    server_side.verify_mode = ssl.CERT_REQUIRED
    server_side.load_verify_locations(ours)
    shown, shown_key = tmp_path / "shown.pem", tmp_path / "shown-key.pem"

    async def use(url: str) -> list[Delivery]:
        shown.write_bytes(wrong.read_bytes())
        shown_key.write_bytes(wrong_key.read_bytes())
        sink = HttpSink(
            url,
            ca_file=served,
            certificate_file=shown,
            key_file=shown_key,
            server_name="broker.example",
        )
        before = await sink.send(EVENTS)
        shown.write_bytes(ours.read_bytes() + b"\n")
        shown_key.write_bytes(key.read_bytes())
        after = await sink.send(EVENTS)
        await sink.close()
        return [before, after]

    before, after = over_tls(server_side, use)

    assert before.n_taken == 0
    assert before.failure in {"tls", "reset"}
    assert after == Delivery(n_taken=3)


def test_files_that_are_no_certificates_are_refused(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing")

    for files in ({"ca_file": nothing}, {"certificate_file": nothing}, {"ca_file": tmp_path / "x"}):
        with pytest.raises(ValueError, match="expected PEM files"):
            HttpSink("https://host/", **files)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="certificate_file beside it"):
        HttpSink("https://host/", key_file=nothing)
