"""The short way of known heads and the thorough way: the same answers, the same stored bytes."""

import asyncio
import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.logger._connection import Connection
from sidelight.logger._connections import Limits
from sidelight.logger._door import Door, DoorLimits
from sidelight.logger._door_connection import DoorConnection
from sidelight.logger._door_gate import GatedDoor
from sidelight.logger._door_heads import LearnedHeads
from sidelight.logger._http import Request, response
from sidelight.logger._http_head import RequestHead
from sidelight.logger._segments import Done
from sidelight.logger.errors import JournalError, JournalFull

WIRE = Path(__file__).parents[1] / "wire"
TOKEN = "sl_0123456789ab_c2VjcmV0"
LIMITS = DoorLimits(max_body_bytes=1000)
CONNECTION_LIMITS = Limits(max_head_bytes=2000)

EVENT = {
    "Host": "collector",
    "User-Agent": "Go-http-client/1.1",
    "Content-Length": "7",
    "Ce-Id": "6ba7b810-9dad-11d1",
    "Ce-Specversion": "1.0",
    "Ce-Source": "http://localhost:9081/",
    "Ce-Type": "org.kubeflow.serving.inference.request",
    "Ce-Time": "2026-01-01T00:00:00.123456789Z",
    "Ce-Metadata": "{}",
    "Content-Type": "application/json",
}


def request(headers: dict[str, str], body: bytes = b'{"x":1}', path: str = "/") -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


PLAIN = request(EVENT)
SAMPLES = (
    PLAIN,
    request({**EVENT, "Ce-Endpoint": "", "Connection": "keep-alive"}),
    request({**EVENT, "Authorization": "Basic c2VjcmV0"}),
    request(EVENT, path=f"/events/{TOKEN}"),
    request({**{name.lower(): value for name, value in EVENT.items()}}, path="/dead-letter"),
)


class Wire(asyncio.Transport):
    """A client's end that keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[bytes | str] = []

    def write(self, data: Any) -> None:
        self.said.append(bytes(data))

    def write_eof(self) -> None:
        self.said.append("eof")

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.said.append("close")

    def abort(self) -> None:
        self.said.append("abort")

    def is_closing(self) -> bool:
        return "close" in self.said

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Kept:
    """A journal in a list, whose syncs end at once."""

    def __init__(self, error: JournalError | None = None) -> None:
        self.records: list[tuple[bytes, bytes]] = []
        self._error = error

    def append(self, head: bytes, body: bytes, done: Done) -> None:
        self.records.append((head, body))
        done(len(self.records) - 1, self._error)


class Side:
    """A door, what it has stored, and connections to it."""

    def __init__(self, *, short: bool, gate: Any = None, error: JournalError | None = None) -> None:
        self.journal = Kept(error)
        self.door = Door(self.journal, LIMITS)
        self.service = self.door if gate is None else GatedDoor(self.door, gate)
        self.heads = LearnedHeads() if short else None
        self.limits = CONNECTION_LIMITS
        self.connect()

    def connect(self) -> None:
        self.wire = Wire()
        self.connection = (
            Connection(self.service, limits=self.limits)
            if self.heads is None
            else DoorConnection(self.service, self.heads, limits=self.limits)
        )
        self.connection.connection_made(self.wire)

    def teach(self, *requests: bytes) -> None:
        for one in requests:
            for _ in range(2):
                self.connection.data_received(one)
                self.connect()

    def told(self, *pieces: bytes) -> tuple[Any, ...]:
        """Feed a new connection; return all that can be seen of it from outside."""
        self.connect()
        self.journal.records.clear()
        for piece in pieces:
            self.connection.data_received(piece)
        self.connection.connection_lost(None)
        counts = self.door.snapshot()
        return tuple(self.wire.said), tuple(self.journal.records), repr(counts)


def sides(*requests: bytes, **options: Any) -> tuple[Side, Side]:
    short, thorough = Side(short=True, **options), Side(short=False, **options)
    for side in (short, thorough):
        side.teach(*requests)
    return short, thorough


def both(known: bytes, *pieces: bytes, **options: Any) -> tuple[tuple[Any, ...], ...]:
    async def run() -> tuple[tuple[Any, ...], ...]:
        return tuple(side.told(*pieces) for side in sides(known, **options))

    return asyncio.run(run())


def wire_requests() -> list[Any]:
    samples = {path.stem: json.loads(path.read_text()) for path in sorted(WIRE.glob("*.json"))}
    return [
        pytest.param(sample[part], id=f"{name}-{part}")
        for name, sample in samples.items()
        for part in ("http", "http_response")
        if part in sample and sample[part]["body"] is not None
    ]


@pytest.mark.parametrize("path", ["/", "/events", f"/events/{TOKEN}", "/events?a=b"])
def test_an_event_whose_target_names_a_host_is_answered_and_stored_as_without(path: str) -> None:
    plain, absolute = request(EVENT, path=path), request(EVENT, path=f"http://collector:8090{path}")

    async def run() -> None:
        side = Side(short=True)
        side.limits = replace(CONNECTION_LIMITS, takes_absolute_form=True)
        said, stored, _ = side.told(plain)
        assert said[0].startswith(b"HTTP/1.1 200")
        for cut in range(1, len(absolute)):
            assert side.told(absolute[:cut], absolute[cut:])[:2] == (said, stored), cut
        side.teach(absolute)
        assert side.told(absolute)[:2] == (said, stored)
        assert side.told(absolute + plain + absolute)[1] == stored * 3

    asyncio.run(run())


@pytest.mark.parametrize("sample", wire_requests())
def test_every_sample_of_the_wire_is_answered_and_stored_alike(sample: dict[str, Any]) -> None:
    told = sample["body"]
    body = told["text"].encode() if "text" in told else base64.b64decode(told["base64"])
    framing = {"content-length", "host"}
    headers = {name: value for name, value in sample["headers"] if name.lower() not in framing}
    headers = {"Host": "door", **headers, "Content-Length": str(len(body))}

    for path in dict.fromkeys(("/", sample.get("path", "/"))):
        short, thorough = both(*[request(headers, body, path=path)] * 2)
        assert short == thorough


@pytest.mark.parametrize("known", SAMPLES)
def test_a_head_that_came_twice_is_known_and_needs_no_thorough_reading(
    known: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> tuple[Any, ...]:
        side, _ = sides(known)

        def never(_: Connection) -> bool:
            raise AssertionError

        monkeypatch.setattr(Connection, "_next", never)
        return side.told(known.replace(b"6ba7b810", b"another"))

    said, records, _ = asyncio.run(run())
    assert said == (response(200),)
    assert len(records) == 1


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([PLAIN + PLAIN], id="pipelined"),
        pytest.param([PLAIN + PLAIN[:-3], PLAIN[-3:]], id="pipelined-and-cut"),
        pytest.param([PLAIN[:40], PLAIN[40:]], id="cut-in-the-head"),
        pytest.param([PLAIN[:-3], PLAIN[-3:]], id="cut-in-the-body"),
        pytest.param([b"\r\n" + PLAIN], id="empty-line-before"),
        pytest.param([PLAIN + b"x"], id="more-than-its-length"),
        pytest.param([PLAIN, PLAIN, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"], id="then-another"),
        *(
            pytest.param([PLAIN.replace(old, new)], id=name)
            for name, old, new in [
                ("second-length", b"Content-Length: 7", b"Content-Length: 7\r\nContent-Length: 7"),
                ("another-length", b"Content-Length: 7", b"Content-Length: 7\r\nContent-Length: 9"),
                ("length-with-sign", b"Length: 7", b"Length: +7"),
                ("length-in-hexadecimal", b"Length: 7", b"Length: 0x7"),
                ("length-of-zeros", b"Length: 7", b"Length: 00000000007"),
                ("list-of-lengths", b"Length: 7", b"Length: 7, 7"),
                ("longer-than-allowed", b"Length: 7", b"Length: 1001"),
                ("longer-than-64-bits", b"Length: 7", b"Length: 99999999999999999999"),
                ("no-length", b"Content-Length: 7\r\n", b""),
                ("coding", b"Content-Length: 7", b"Transfer-Encoding: chunked"),
                ("length-and-coding", b"Host", b"Transfer-Encoding: chunked\r\nHost"),
                ("coding-by-another-name", b"Ce-Metadata:", b"Transfer-Encoding:"),
                ("expect", b"Ce-Metadata: {}", b"Expect: 100-continue"),
                ("close", b"Ce-Metadata: {}", b"Connection: close"),
                ("upgrade", b"Ce-Metadata: {}", b"Connection: upgrade\r\nUpgrade: h2c"),
                ("folded", b"Ce-Time: ", b"Ce-Time: a\r\n b"),
                ("folded-with-a-tab", b"Ce-Time: ", b"Ce-Time:\r\n\t"),
                ("blank-before-colon", b"Ce-Time:", b"Ce-Time :"),
                ("bare-line-feed", b"Ce-Time: ", b"Ce-Time: a\nExpect: b"),
                ("bare-return", b"Ce-Time: ", b"Ce-Time: a\rb"),
                ("zero", b"Ce-Time: ", b"Ce-Time: a\0b"),
                ("second-host", b"Ce-Metadata:", b"Host:"),
                ("no-host", b"Host: collector\r\n", b""),
                ("http-1.0", b"HTTP/1.1", b"HTTP/1.0"),
                ("http-2", b"HTTP/1.1", b"HTTP/2.0"),
                ("other-method", b"POST", b"PUT "),
                ("other-target", b"POST /", b"POST /v1"),
                ("no-id", b"Ce-Id: 6ba7b810-9dad-11d1\r\n", b""),
                ("empty-id", b"6ba7b810-9dad-11d1", b""),
                ("blank-id", b"6ba7b810-9dad-11d1", b"  "),
                ("id-behind-blanks", b"6ba7b810-9dad-11d1", b"  7"),
                ("id-behind-a-tab", b"6ba7b810-9dad-11d1", b"\t7"),
                ("structured", b"application/json", b"application/cloudevents+json"),
                ("batch", b"application/json", b"application/cloudevents-batch+json"),
                (
                    "media-type-elsewhere",
                    b"Ce-Metadata: {}",
                    b"Ce-Metadata: application/cloudevents",
                ),
                ("head-too-long", b"Ce-Metadata: {}", b"Ce-Metadata: " + b"x" * 2000),
                ("longest-head", b"Ce-Metadata: {}", b"Ce-Metadata: ".ljust(2000 - 321, b"x")),
            ]
        ),
    ],
)
def test_what_is_not_plain_is_answered_and_stored_alike(pieces: list[bytes]) -> None:
    short, thorough = both(PLAIN, *pieces)

    assert short == thorough


@pytest.mark.parametrize("name", [b"Ce-Id: ", b"Ce-Metadata: ", b"Host: ", b"Content-Length: "])
@pytest.mark.parametrize("at", [0, 1])
def test_every_byte_in_a_value_is_answered_and_stored_alike(name: bytes, at: int) -> None:
    async def run() -> list[int]:
        short, thorough = sides(PLAIN)
        place = PLAIN.index(name) + len(name) + at
        mutated = [PLAIN[:place] + bytes([byte]) + PLAIN[place:] for byte in range(256)]
        return [n for n, one in enumerate(mutated) if short.told(one) != thorough.told(one)]

    assert asyncio.run(run()) == []


pieces_of_requests = st.sampled_from(
    [
        *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\0", b"\xff", b"0", b"9", b"chunked", b","),
        *(b"Content-Length: 7\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\n\r\n"),
        *(b"Expect: 100-continue\r\n", b"Connection: close\r\n", b'7\r\n{"x":1}\r\n0\r\n\r\n'),
        *(
            b"Host: a\r\n",
            b"application/cloudevents",
            b"Ce-Id: \r\n",
            b"POST / HTTP/1.1\r\n",
            PLAIN,
        ),
    ]
) | st.binary(max_size=3)
changes = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 30), pieces_of_requests), min_size=1, max_size=3
)


@given(st.sampled_from(SAMPLES), changes, st.integers(0, 500))
def test_changed_requests_are_answered_and_stored_alike(
    known: bytes, made: list[tuple[int, int, bytes]], cut: int
) -> None:
    changed = known
    for at, gone, new in made:
        changed = changed[:at] + new + changed[at + gone :]

    short, thorough = both(known, changed[:cut] or known, changed[cut:] or known)
    assert short == thorough


@pytest.mark.parametrize("error", [JournalFull("full"), JournalError("broken")])
def test_what_could_not_be_stored_is_answered_alike(error: JournalError) -> None:
    short, thorough = both(PLAIN, PLAIN, PLAIN, error=error)

    assert short == thorough
    assert b"503" in short[0][0]


class Strict:
    """A gate that knows one token."""

    def admit(self, target: bytes, head: bytes) -> bytes | None:
        return None if self.passes(target, head) else response(401)

    def check(self, request: Request) -> bytes | None:
        del request
        return None

    def passes(self, target: bytes, head: bytes) -> bool:
        return TOKEN.encode() in target + head


@pytest.mark.parametrize("where", ["target", "header"])
@pytest.mark.parametrize("sent", [TOKEN, TOKEN.replace("5", "6")])
def test_the_gate_is_asked_each_time_and_no_secret_is_kept(where: str, sent: str) -> None:
    def with_token(token: str) -> bytes:
        if where == "target":
            return request(EVENT, path=f"/events/{token}")
        return request({**EVENT, "Authorization": f"Bearer {token}"})

    short, thorough = both(with_token(TOKEN), with_token(sent), gate=Strict())

    assert short == thorough
    assert "c2VjcmV0" not in repr(short)
    assert (response(200) in short[0]) == (sent == TOKEN)


def test_where_there_is_no_room_the_short_way_is_not_taken() -> None:
    async def run() -> list[tuple[Any, ...]]:
        told = []
        for side in sides(PLAIN):
            side.door.is_disk_low = True
            told.append(side.told(PLAIN))
        return told

    short, thorough = asyncio.run(run())
    assert short == thorough
    assert b"retry-after: 5" in short[0][0]


class Held(Kept):
    """A journal whose syncs end when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[Done] = []

    def append(self, head: bytes, body: bytes, done: Done) -> None:
        self.records.append((head, body))
        self.done.append(done)


def test_what_comes_before_the_answer_waits_and_who_has_gone_is_not_answered() -> None:
    async def run() -> tuple[Side, list[Wire]]:
        side = Side(short=True)
        side.teach(PLAIN)
        held = Held()
        side.door._journal = held
        side.connect()
        gone, first = side.wire, side.connection
        first.data_received(PLAIN)
        first.connection_lost(None)
        side.connect()
        side.connection.data_received(PLAIN)
        side.connection.data_received(PLAIN)
        assert len(held.records) == 2
        held.done[0](0, None)
        held.done[1](1, None)
        assert len(held.records) == 3
        held.done[1](1, None)
        assert side.wire.said == [response(200)]
        side.connection.finish()
        held.done[2](2, None)
        return side, [gone]

    side, (gone,) = asyncio.run(run())
    assert gone.said == []
    assert side.wire.said == [
        response(200),
        response(200)[:-2] + b"connection: close\r\n\r\n",
        "close",
    ]


def test_a_journal_that_fails_to_take_an_event_costs_its_sender_500_and_nobody_else() -> None:
    class Broken:
        def append(self, *_: object) -> None:
            raise RuntimeError

    async def run() -> list[bytes | str]:
        side = Side(short=True)
        side.teach(PLAIN)
        side.connect()
        working, side.door._journal = side.door._journal, Broken()
        side.connection.data_received(PLAIN)
        side.door._journal = working
        side.connection.data_received(PLAIN)
        return side.wire.said

    refused, stored = asyncio.run(run())
    assert refused.startswith(b"HTTP/1.1 500 ")  # type: ignore[arg-type]
    assert stored == response(200)


def test_few_heads_are_kept_and_those_are_the_ones_that_come_again() -> None:
    async def run() -> tuple[int, bool]:
        side = Side(short=True)
        assert side.heads is not None
        side.teach(PLAIN)
        known = side.heads.heads[0]
        for number in range(300):
            other = request({**EVENT, f"X-{number}": ""})
            side.teach(*[PLAIN] * 8, *[other] * 4)
        return len(side.heads.heads), known in side.heads.heads

    kept, is_known = asyncio.run(run())
    assert kept == 16
    assert is_known


def test_long_heads_are_not_learned() -> None:
    heads = LearnedHeads()
    for n_lines in (2000, 100):
        raw = request({**EVENT, **{f"X-{number}": "" for number in range(n_lines)}}, b"")
        for _ in range(2):
            heads.learn(RequestHead(raw))
        assert len(heads.heads) == (n_lines == 100)


def test_a_head_whose_bodies_come_later_is_learned_once() -> None:
    async def run() -> int:
        side = Side(short=True)
        for _ in range(20):
            side.told(PLAIN[:-3], PLAIN[-3:])
        assert side.heads is not None
        return len(side.heads.heads)

    assert asyncio.run(run()) == 1


@pytest.mark.parametrize(
    "unusual",
    [
        pytest.param(request({**EVENT, "Connection": "close"}), id="close"),
        pytest.param(PLAIN.replace(b"1.1", b"1.0", 1), id="http-1.0"),
        pytest.param(request({**EVENT, "Expect": "100-continue"}), id="expect"),
        pytest.param(request(EVENT, path="/events?from=broker"), id="query"),
        pytest.param(request(EVENT, path="/consumer/kserve/v2"), id="records"),
        pytest.param(
            request({**EVENT, "Content-Type": "application/cloudevents-batch+json"}), id="batch"
        ),
        pytest.param(PLAIN.replace(b"Ce-Id: 6ba7b810-9dad-11d1", b"Ce-Id: "), id="no-id"),
    ],
)
def test_unusual_heads_are_not_learned(unusual: bytes) -> None:
    async def run() -> LearnedHeads | None:
        side = Side(short=True)
        side.teach(unusual, unusual)
        return side.heads

    heads = asyncio.run(run())
    assert heads is not None
    assert heads.heads == []
