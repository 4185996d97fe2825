"""The door over real sockets: what it takes, what it refuses and how it says so."""

import asyncio
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidelight.logger import _door_server
from sidelight.logger._checkpoint import LogHead
from sidelight.logger._connection import Connection
from sidelight.logger._door import Door, DoorLimits
from sidelight.logger._door_checks import MAX_MEMBERS, MAX_NESTING
from sidelight.logger._door_server import DoorServer
from sidelight.logger._http import Request, Respond, response
from sidelight.logger._segments import Done, SegmentReader
from sidelight.logger._segments_signature import Signer
from sidelight.logger._verify import verify
from sidelight.logger.errors import FolderInUse, JournalError, JournalFull

BINARY = {"ce-specversion": "1.0", "ce-type": "t", "ce-source": "/s", "ce-id": "1"}
KNOWN = {**BINARY, "ce-type": "org.kubeflow.serving.inference.request"}
STRUCTURED = {"content-type": "application/cloudevents+json; charset=utf-8"}
BATCH = {"content-type": "application/cloudevents-batch+json"}
ATTRIBUTES = {"specversion": "1.0", "type": "t", "source": "/s", "id": "1"}
ENVELOPE = json.dumps({**ATTRIBUTES, "data": [1]}).encode()

GZIPPED = gzip.compress(b'{"id": "1", "kind": "request", "data": "CgA="}', mtime=0)


def without(headers: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in names}


@asynccontextmanager
async def serving(
    data: Path, **options: Any
) -> AsyncIterator[tuple[DoorServer, httpx.AsyncClient]]:
    server = DoorServer(data, "127.0.0.1", 0, **options)
    await server.start()
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{server.port}", timeout=60
        ) as client:
            yield server, client
    finally:
        await server.stop()


def stored(data: Path) -> list[tuple[bytes, bytes]]:
    reader = SegmentReader(data)
    records = reader.read(0, max_records=10_000, max_bytes=1 << 30)
    reader.close()
    return [(record.head, record.body) for record in records]


def ask(
    data: Path, work: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]
) -> httpx.Response:
    async def run() -> httpx.Response:
        async with serving(data) as (_, client):
            return await work(client)

    return asyncio.run(run())


@pytest.mark.parametrize("path", ["/", "/events", "/dead-letter", "/events?from=broker"])
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param(BINARY, b"payload", id="binary"),
        pytest.param(BINARY, b"", id="binary-without-data"),
        pytest.param({k.upper(): v for k, v in BINARY.items()}, b"x", id="other-case"),
        pytest.param({**KNOWN, "ce-id": ""}, b"x", id="known-type-with-empty-id"),
        pytest.param(without(KNOWN, "ce-id"), b"x", id="known-type-without-id"),
        pytest.param({**KNOWN, **STRUCTURED}, b"no json", id="agent-copied-the-content-type"),
        pytest.param({**BINARY, "content-encoding": "gzip"}, b"no gzip", id="binary-as-it-came"),
        pytest.param(STRUCTURED, ENVELOPE, id="structured"),
        pytest.param({**BINARY, **STRUCTURED}, ENVELOPE, id="structured-wins"),
        pytest.param(
            {**STRUCTURED, "content-encoding": "gzip"}, gzip.compress(ENVELOPE), id="gzip"
        ),
        pytest.param(STRUCTURED, gzip.compress(ENVELOPE), id="gzip-that-nobody-states"),
        pytest.param(STRUCTURED, ENVELOPE.replace(b"[1]", b"[NaN]"), id="nan"),
        pytest.param(BATCH, b"[]", id="empty-batch"),
        pytest.param(BATCH, b"[" + ENVELOPE + b', {"bad": true}, 7]', id="batch-with-bad-members"),
        pytest.param(BATCH, b"[" + ENVELOPE + b', {"x": NaN}]', id="batch-with-nan"),
        pytest.param(BATCH, b"[" + b"{}," * (MAX_MEMBERS - 1) + b"{}]", id="batch-of-the-most"),
        pytest.param(
            BATCH,
            b"[" + ENVELOPE + b', {"x": NaN, "y": "' + b"," * (2 * MAX_MEMBERS) + b'"}]',
            id="long-batch-with-nan",
        ),
    ],
)
def test_an_event_is_stored_as_it_came_and_answered_with_nothing(
    tmp_path: Path, path: str, headers: dict[str, str], body: bytes
) -> None:
    answer = ask(tmp_path, lambda client: client.post(path, headers=headers, content=body))

    assert (answer.status_code, answer.content) == (200, b"")
    ((head, kept),) = stored(tmp_path)
    assert head.startswith(f"POST {path} HTTP/1.1\r\n".encode())
    assert kept == body
    assert verify(tmp_path).ok


@pytest.mark.parametrize(
    ("headers", "body", "status", "expected", "got"),
    [
        pytest.param({}, b"{}", 400, "ce- headers", "neither", id="no-event"),
        pytest.param(
            {"content-type": "application/json"}, b"{}", 400, "ce-", "application/json", id="raw"
        ),
        *(
            pytest.param(without(BINARY, name), b"", 400, name, f"no {name}", id=f"no-{name}")
            for name in BINARY
        ),
        pytest.param({**BINARY, "ce-id": ""}, b"", 400, "ce-id", "no ce-id", id="empty-id"),
        pytest.param({**KNOWN, "ce-source": ""}, b"", 400, "ce-source", "ce-source", id="source"),
        pytest.param(STRUCTURED, b"{", 400, "JSON", "", id="unparsable"),
        pytest.param(STRUCTURED, b"[]", 400, "JSON object", "", id="array-for-an-object"),
        pytest.param(STRUCTURED, b'{"id": "1"}', 400, "attribute", "none", id="incomplete"),
        pytest.param(STRUCTURED, b"", 400, "JSON", "nothing", id="nothing"),
        pytest.param(STRUCTURED, b"\xff\xfe{", 400, "JSON", "", id="no-utf-8"),
        pytest.param(
            STRUCTURED,
            ENVELOPE.replace(b"[1]", b"[" * 10_000 + b"]" * 10_000),
            400,
            f"{MAX_NESTING} levels",
            "more",
            id="bottomless",
        ),
        pytest.param(BATCH, ENVELOPE, 400, "JSON array", "an object", id="object-for-a-batch"),
        pytest.param(BATCH, b"[1", 400, "JSON array", "", id="unparsable-batch"),
        pytest.param(BATCH, b"[" * 10_000, 400, "JSON", "", id="bottomless-batch"),
        pytest.param(
            BATCH, b"[" + b"{}," * MAX_MEMBERS + b"{}]", 413, "262144", "more", id="many-members"
        ),
        pytest.param(
            BATCH, b"[" + b"0," * MAX_MEMBERS + b"0]", 413, "262144", "more", id="many-scalars"
        ),
        pytest.param(
            BATCH,
            b"[NaN," + b"{}," * MAX_MEMBERS + b"0]",
            413,
            "262144",
            "more",
            id="many-members-behind-nan",
        ),
        pytest.param(
            {"content-type": "application/cloudevents+avro"}, b"x", 415, "json", "avro", id="avro"
        ),
        pytest.param(
            {**BATCH, "content-encoding": "br"}, b"x", 415, "gzip", "br", id="other-coding"
        ),
        pytest.param(
            {**BATCH, "content-encoding": "gzip"},
            gzip.compress(ENVELOPE)[:-9],
            400,
            "complete",
            "",
            id="truncated-gzip",
        ),
        pytest.param(
            {**BATCH, "content-encoding": "gzip"},
            gzip.compress(bytes(20 << 20)),
            413,
            "16777216 bytes",
            "more",
            id="bomb",
        ),
    ],
)
def test_what_is_no_event_is_refused_with_what_was_expected_and_got(
    tmp_path: Path, headers: dict[str, str], body: bytes, status: int, expected: str, got: str
) -> None:
    answer = ask(tmp_path, lambda client: client.post("/", headers=headers, content=body))

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert {"type", "title", "detail", "hint"} <= document.keys()
    assert expected in document["expected"]
    assert got in document["got"]
    assert stored(tmp_path) == []


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 70_000, b"413", id="long"),
        pytest.param(b"POST / HTTP/2.0\r\nHost: x\r\n\r\n", b"400", id="other-version"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            b"400",
            id="other-coding",
        ),
    ],
)
def test_senders_are_told_of_bad_heads_in_the_few_statuses_that_they_know(
    tmp_path: Path, head: bytes, status: bytes
) -> None:
    async def answered() -> bytes:
        async with serving(tmp_path) as (server, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(head)
            line = await reader.readline()
            writer.close()
            return line

    assert asyncio.run(answered()).split()[1] == status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"id": "1", "kind": "request", "data": "CgA=", "modelid": "m"}', 200),
        (b'{"id": "1", "kind": "request", "data": {"x": NaN}}', 200),
        (b'{"id": "1", "kind": "request", "data": null}', 200),
        (b'{"id": "1", "kind": "request"}', 400),
        (b'{"id": "", "kind": "request", "data": "CgA="}', 400),
        (b'{"id": "1", "data": "CgA="}', 400),
        (b"[]", 400),
        (b"{", 400),
        (b"[" * 10_000, 400),
        (GZIPPED, 200),
        (GZIPPED[:-4], 400),
    ],
)
def test_payload_records_of_modelmesh_need_id_kind_and_data(
    tmp_path: Path, body: bytes, status: int
) -> None:
    answer = ask(tmp_path, lambda client: client.post("/consumer/kserve/v2", content=body))

    assert answer.status_code == status
    assert len(stored(tmp_path)) == (status == 200)


@pytest.mark.parametrize("origin", ["*", "eventemitter.example.com"])
def test_the_handshake_of_web_hooks_is_answered(tmp_path: Path, origin: str) -> None:
    headers = {} if origin == "*" else {"webhook-request-origin": origin}
    answer = ask(tmp_path, lambda client: client.options("/events", headers=headers))

    assert answer.status_code == 200
    assert answer.headers["allow"] == "POST, OPTIONS"
    assert answer.headers["webhook-allowed-origin"] == origin
    assert answer.headers["webhook-allowed-rate"] == "*"
    assert stored(tmp_path) == []


class Api:
    """Stands for the API behind the door."""

    def admit(self, method: bytes, target: bytes, head: bytes) -> int:
        del method, target, head
        return 1000

    def handle(self, request: Request, respond: Respond) -> None:
        respond(response(201, body=request.method + b" " + request.target + b" " + request.body))


def test_everything_else_is_relayed(tmp_path: Path) -> None:
    socket = tmp_path / "api.sock"

    async def run() -> list[bytes]:
        api = await asyncio.get_running_loop().create_unix_server(
            lambda: Connection(Api()), str(socket)
        )
        async with serving(tmp_path / "data", api_socket=socket) as (_, client):
            answers = [
                await client.get("/"),
                await client.get("/events"),
                await client.put("/events", content=b"x"),
                await client.post("/v1/feedback?a=b", content=b"y"),
                await client.post("/eventsss", headers=BINARY),
            ]
        api.close()
        return [answer.content for answer in answers]

    assert asyncio.run(run()) == [
        b"GET / ",
        b"GET /events ",
        b"PUT /events x",
        b"POST /v1/feedback?a=b y",
        b"POST /eventsss ",
    ]
    assert stored(tmp_path / "data") == []


@pytest.mark.parametrize(
    ("target", "origin"),
    [
        ("http://door:8090/v1/alarms?a=http://b", b"/v1/alarms?a=http://b"),
        ("HTTPS://u:p@[::1]:8090?a", b"/?a"),
        ("http://door", b"/"),
        ("http://door/http://door/x", b"/http://door/x"),
        # What is no address of ours is passed on as it came, or refused.
        ("ftp://door/x", b"ftp://door/x"),
        ("http:///x", b"http:///x"),
        ("http://do|or/x", b""),
    ],
)
def test_a_target_with_scheme_and_host_is_taken_for_the_one_without(
    tmp_path: Path, target: str, origin: bytes
) -> None:
    socket = tmp_path / "api.sock"

    async def run() -> bytes:
        api = await asyncio.get_running_loop().create_unix_server(
            lambda: Connection(Api()), str(socket)
        )
        async with serving(tmp_path / "data", api_socket=socket) as (server, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            said = await reader.readexactly(length)
            writer.close()
        api.close()
        return said

    said = asyncio.run(run())

    if origin:
        assert said == b"GET " + origin + b" "
    else:
        assert json.loads(said)["status"] == 400


def test_while_there_is_no_api_a_question_is_told_to_come_again(tmp_path: Path) -> None:
    async def run() -> httpx.Response:
        async with serving(tmp_path / "data", api_socket=tmp_path / "none") as (_, client):
            return await client.get("/v1/deployments")

    answer = asyncio.run(run())

    assert answer.status_code == 502
    assert "ask again" in answer.json()["hint"]


def request_bytes(headers: dict[str, str], body: bytes, *, path: str = "/") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: door", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


def test_mixed_kinds_on_one_pipelining_connection_are_answered_in_order(tmp_path: Path) -> None:
    sent = [
        (KNOWN, b"0", 200),
        ({}, b"none", 400),
        (BATCH, b"[]", 200),
        ({**KNOWN, "ce-type": "org.kubeflow.serving.inference.response"}, b"1", 200),
        (STRUCTURED, b"{", 400),
        (STRUCTURED, ENVELOPE, 200),
    ] * 20

    async def run() -> list[int]:
        async with serving(tmp_path) as (server, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"".join(request_bytes(headers, body) for headers, body, _ in sent))
            statuses = []
            for _ in sent:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
                statuses.append(int(head.split(b" ")[1]))
            writer.close()
            return statuses

    assert asyncio.run(run()) == [status for _, _, status in sent]
    assert [body for _, body in stored(tmp_path)] == [
        body for _, body, status in sent if status == 200
    ]


def test_a_chunked_body_is_stored_without_its_chunks(tmp_path: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for part in (b"one ", b"two ", b"three"):
            yield part

    answer = ask(tmp_path, lambda client: client.post("/", headers=BINARY, content=chunks()))

    assert answer.status_code == 200
    assert stored(tmp_path)[0][1] == b"one two three"


def test_a_body_of_100_mb_is_refused_unread(tmp_path: Path) -> None:
    async def run() -> tuple[bytes, int]:
        async with serving(tmp_path) as (server, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            head = request_bytes(BINARY, b"").replace(b"length: 0", b"length: 100000000")
            writer.write(head)
            answer = await reader.readuntil(b"\r\n\r\n")
            writer.close()
            return answer, server.snapshot()["connections"]["refused"]

    answer, refused = asyncio.run(run())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert refused == 1
    assert stored(tmp_path) == []


class Held:
    """A journal whose syncs end when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Done] = []

    def append(self, head: bytes, body: bytes, done: Done) -> None:
        del head, body
        self.waiting.append(done)

    def finish(self, error: JournalError | None = None) -> None:
        for position, done in enumerate(self.waiting):
            done(position, error)
        self.waiting.clear()


def post(door: Door, body: bytes = b"", *, headers: dict[str, str] | None = None) -> list[bytes]:
    answers: list[bytes] = []
    head = request_bytes(headers or BINARY, b"")
    verdict = door.admit(b"POST", b"/", head)
    if isinstance(verdict, int):
        door.handle(Request(b"POST", b"/", head, body), answers.append)
    elif verdict is not None:
        answers.append(verdict)
    return answers


def test_nothing_is_acknowledged_before_it_is_durable() -> None:
    journal = Held()
    answers = post(Door(journal))

    assert answers == []
    journal.finish()
    assert answers == [response(200)]


def test_bytes_in_flight_are_bounded() -> None:
    journal = Held()
    door = Door(journal, DoorLimits(max_flight_bytes=1000))
    post(door, bytes(2000))
    (refused,) = post(door)

    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 1\r\n" in refused
    journal.finish()
    assert door.flight_bytes == 0
    assert post(door) == []
    assert door.snapshot()["refused"] == {"memory": 1}


@pytest.mark.parametrize(
    ("error", "reason", "retry"),
    [(JournalFull("full"), "disk", b"5"), (JournalError("broken"), "journal", b"1")],
)
def test_what_could_not_be_made_durable_is_answered_with_503(
    error: JournalError, reason: str, retry: bytes
) -> None:
    journal = Held()
    door = Door(journal)
    (answers, other) = (post(door), post(door))
    journal.finish(error)

    assert answers == other
    assert answers[0].startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: " + retry + b"\r\n" in answers[0]
    assert door.snapshot()["refused"] == {reason: 2}
    assert door.snapshot()["answers"] == {"503": 2}


def test_a_disk_that_is_nearly_full_is_answered_with_503(tmp_path: Path) -> None:
    async def run() -> tuple[httpx.Response, httpx.Response]:
        async with serving(tmp_path, limits=DoorLimits(min_free_bytes=1 << 60)) as (_, client):
            return await client.post("/", headers=BINARY), await client.options("/")

    refused, handshake = asyncio.run(run())
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "5"
    assert "disk" in refused.json()["detail"]
    assert handshake.status_code == 200


@pytest.mark.parametrize("lost", ["raw", "raw/*.seg"])
def test_nothing_is_acknowledged_into_an_archive_that_was_deleted(
    tmp_path: Path, lost: str
) -> None:
    def delete() -> None:
        for path in tmp_path.glob(lost):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    async def run() -> tuple[int, int]:
        async with serving(tmp_path) as (server, client):
            before = await client.post("/", headers=BINARY)
            delete()
            server._watch_disk()
            after = await client.post("/", headers=BINARY)
            return before.status_code, after.status_code

    assert asyncio.run(run()) == (200, 503)


def test_a_full_disk_loses_nothing_and_the_door_opens_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int, __: tuple[bytes, ...]) -> None:
        raise OSError(28, "No space left on device")

    async def run() -> list[int]:
        async with serving(tmp_path) as (_, client):
            statuses = []
            for is_full in (False, True, True, False):
                with monkeypatch.context() as patch:
                    if is_full:
                        patch.setattr("sidelight.logger._segments_archive.write_all", full)
                    statuses.append((await client.post("/", headers=BINARY)).status_code)
            return statuses

    assert asyncio.run(run()) == [200, 503, 503, 200]
    assert len(stored(tmp_path)) == 2
    assert verify(tmp_path).ok


def test_after_a_failed_sync_the_door_goes_on_in_another_segment(tmp_path: Path) -> None:
    outcomes = [True, False, True, True]
    synced: list[int] = []

    def sync(descriptor: int) -> None:
        if not outcomes.pop(0):
            raise OSError(5, "Input/output error")
        os.fdatasync(descriptor)
        synced.append(os.fstat(descriptor).st_ino)

    async def run() -> list[tuple[int, str | None]]:
        async with serving(tmp_path, sync=sync) as (_, client):
            answers = [await client.post("/", headers=BINARY) for _ in range(4)]
            return [(one.status_code, one.headers.get("retry-after")) for one in answers]

    assert asyncio.run(run()) == [(200, None), (503, "1"), (200, None), (200, None)]
    # A file whose sync failed is not written to again.
    assert synced[0] not in synced[1:]
    assert len(stored(tmp_path)) == 3
    assert verify(tmp_path).ok


def test_the_gate_is_for_strangers_only(tmp_path: Path) -> None:
    socket = tmp_path / "run" / "ingest.sock"

    class OnlyTheGood:
        def admit(self, target: bytes, head: bytes) -> bytes | None:
            del target
            return None if b"bearer good" in head else response(401)

        def check(self, request: Request) -> bytes | None:
            return response(403) if request.body == b'"foreign"' else None

        def passes(self, target: bytes, head: bytes) -> bool:
            del target, head
            return False

    async def run() -> tuple[list[int], dict[str, Any]]:
        async with serving(tmp_path, ingest_socket=socket, gate=OnlyTheGood()) as (_, client):
            inside = httpx.AsyncHTTPTransport(uds=str(socket))
            async with httpx.AsyncClient(
                transport=inside, base_url="http://door", timeout=60
            ) as beside:
                allowed = {**BINARY, "authorization": "bearer good"}
                statuses = [
                    (await client.post("/", headers=BINARY)).status_code,
                    (await client.post("/", headers=allowed)).status_code,
                    (await client.post("/", headers=allowed, content='"foreign"')).status_code,
                    (await beside.post("/", headers=BINARY)).status_code,
                    (await client.get("/door")).status_code,
                ]
                return statuses, (await beside.get("/door")).json()

    statuses, counters = asyncio.run(run())
    assert statuses == [401, 200, 403, 200, 404]
    assert counters["accepted"] == {"binary": 2}
    assert counters["answers"] == {"200": 2, "401": 1, "403": 1}
    assert counters["refused"] == {"gate": 2}
    assert counters["journal"]["end"] == 2
    assert not socket.exists()


@pytest.mark.parametrize("is_gated", [False, True])
def test_a_token_in_the_path_or_a_header_is_taken_and_its_secret_not_kept(
    tmp_path: Path, *, is_gated: bool
) -> None:
    class Open:
        def admit(self, target: bytes, head: bytes) -> bytes | None:
            assert b"c2VjcmV0" in target + head
            return None

        def check(self, request: Request) -> bytes | None:
            assert b"c2VjcmV0" in request.head
            return None

        def passes(self, target: bytes, head: bytes) -> bool:
            del target, head
            return False

    token = "sl_0123456789ab_c2VjcmV0"

    async def run() -> list[int]:
        async with serving(tmp_path, gate=Open() if is_gated else None) as (_, client):
            basic = {"authorization": "Basic c2VjcmV0"}
            bearer = {"authorization": f"Bearer {token}"}
            answers = [
                await client.post(f"/events/{token}", headers=BINARY),
                await client.post(f"/events/{token}?x=1", headers=BINARY),
                await client.post("/events", headers={**BINARY, **bearer}),
                await client.post("/", headers={**BINARY, **basic}),
                await client.post(f"/events/{token}/deeper", headers=BINARY),
            ]
            return [answer.status_code for answer in answers]

    assert asyncio.run(run()) == [200, 200, 200, 200, 404]
    heads = [head for head, _ in stored(tmp_path)]
    assert len(heads) == 4
    # Where no gate asks for tokens, a header is what the sender wrote.
    clean = heads if is_gated else heads[:2]
    assert not [head for head in clean if b"c2VjcmV0" in head]
    assert all(b"sl_0123456789ab" in head for head in heads[:3])


def test_a_folder_in_use_is_said_and_an_address_in_use_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        async with serving(tmp_path / "one") as (server, _):
            with pytest.raises(FolderInUse):
                await DoorServer(tmp_path / "one", "127.0.0.1", 0).start()
            with pytest.raises(OSError, match="address"):
                await DoorServer(tmp_path / "two", "127.0.0.1", server.port).start()
        assert verify(tmp_path / "two").ok

    asyncio.run(run())


def test_the_access_log_is_looked_at_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_door_server, "_LOOK_S", 0.0)
    monkeypatch.setattr(_door_server, "_SIGN_PAUSES", 0)
    signer = Signer(Ed25519PrivateKey.generate())

    async def run() -> None:
        loop, seen = asyncio.get_running_loop(), asyncio.Event()
        looks = []

        def watch(former: LogHead | None) -> tuple[LogHead | None, str | None]:
            looks.append(former)
            if len(looks) > 5:
                loop.call_soon_threadsafe(seen.set)
            return former, None

        async with serving(tmp_path, signer=signer, watch=watch):
            await seen.wait()

    asyncio.run(run())


PROCESS = """
import sys
from pathlib import Path
import uvloop
from sidelight.logger._door_server import DoorServer, serve_door
server = DoorServer(Path(sys.argv[1]), "127.0.0.1", 0, segment_bytes=100_000)
uvloop.run(serve_door(server, ready=lambda: print(server.port, flush=True)))
"""


def start_door(data: Path) -> tuple["subprocess.Popen[bytes]", int]:
    process = subprocess.Popen([sys.executable, "-c", PROCESS, str(data)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_a_sender_that_repeats_loses_nothing_to_kills(tmp_path: Path) -> None:
    async def send(port: int, left: list[int], kill_after: int, door: int) -> None:
        acknowledged = 0

        async def one() -> None:
            nonlocal acknowledged
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                while left:
                    number = left.pop()
                    try:
                        headers = {**KNOWN, "ce-id": str(number)}
                        writer.write(request_bytes(headers, b"%d" % number))
                        answer = await reader.readuntil(b"\r\n\r\n")
                        assert answer.startswith(b"HTTP/1.1 200 ")
                    except (OSError, asyncio.IncompleteReadError):
                        left.append(number)
                        return
                    acknowledged += 1
                    if acknowledged == kill_after:
                        os.kill(door, signal.SIGKILL)
            finally:
                writer.close()

        await asyncio.gather(*(one() for _ in range(8)))

    left = list(range(3000))
    for round_ in range(6):
        process, port = start_door(tmp_path)
        asyncio.run(send(port, left, 100 + 83 * round_, process.pid))
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    process, port = start_door(tmp_path)
    asyncio.run(send(port, left, -1, process.pid))
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    assert process.stdout is not None
    process.stdout.close()

    assert left == []
    bodies = [body for _, body in stored(tmp_path)]
    assert set(bodies) == {b"%d" % number for number in range(3000)}
    # What is stored twice was in flight when the door was killed: at most one a connection.
    assert len(bodies) <= 3000 + 6 * 8
    report = verify(tmp_path)
    assert report.findings == ()
