import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pandas as pd
import pytest

from sidelight.service.demo import (
    FlightRequest,
    FlightStream,
    HttpClient,
    ModelNotReady,
    Traffic,
    TrafficReport,
    Unanswered,
    ask_model,
    flight_to_explain,
    stream_auc,
)

Answer = Callable[[dict[str, Any]], bytes]
CLOSE = b"<then the server closes>"


def flights(n_rows: int) -> pd.DataFrame:
    departs = pd.date_range("2013-04-01 05:00", periods=n_rows, freq="6h")
    table = pd.DataFrame(
        {
            "request_id": [f"{day:%Y-%m-%d}-UA-{row}-EWR" for row, day in enumerate(departs)],
            "departs": departs,
            "hour": departs.hour,
            "arr_delay": [row % 3 * 10.0 for row in range(n_rows)],
            "late": [float(row % 3 == 2) for row in range(n_rows)],
        }
    )
    weather = {"temp": 50.0, "humid": 60.0, "wind_speed": 1.0, "precip": 0.0, "pressure": 1e3}
    return table.assign(carrier="UA", origin="EWR", distance=1400, visib=10.0, **weather)


def http(status: int, body: object, *, headers: str = "") -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} x\r\nContent-Length: {len(text)}\r\n{headers}\r\n"
    return head.encode() + text


def right(request: dict[str, Any]) -> bytes:
    hours = request["inputs"][0]["data"]
    data = [hour / 24 for hour in hours]
    return http(200, {"id": request["id"], "outputs": [{"name": "probability", "data": data}]})


def serving(answer: Answer, work: Callable[[int], Awaitable[Any]]) -> Any:
    """Run ``work(port)`` against a server that answers each request by ``answer(its JSON)``."""

    handlers: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                n_bytes = int(head.split("content-length: ")[1].split("\r\n")[0])
                reply = answer(json.loads(await reader.readexactly(n_bytes)))
                writer.write(reply.removesuffix(CLOSE))
                if reply.endswith(CLOSE):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            # A client that gives up may leave with an answer unread.
            pass
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.get_running_loop().create_task(serve(reader, writer)))

    async def run() -> Any:
        async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
            result = await work(server.sockets[0].getsockname()[1])
            await asyncio.gather(*handlers)
        return result

    return asyncio.run(run())


def sent(stream: FlightStream, answer: Answer, *, connections: int = 3) -> TrafficReport:
    def send(port: int) -> Awaitable[TrafficReport]:
        return Traffic("127.0.0.1", port, connections=connections).send(stream)

    report = serving(answer, send)
    assert isinstance(report, TrafficReport)
    return report


def test_each_request_is_sent_once_and_nearly_in_order() -> None:
    stream = FlightStream(flights(200), group_every=7)
    arrived: list[str] = []

    def note(request: dict[str, Any]) -> bytes:
        arrived.append(request["id"])
        return right(request)

    report = sent(stream, note)

    places = {request.id: place for place, request in enumerate(stream.requests)}
    assert sorted(arrived) == sorted(places)
    # None overtakes more than the two others that are under way.
    assert max(places[name] - place for place, name in enumerate(arrived)) < 3
    assert (report.rows, report.failures) == (200, {})
    assert report.probabilities[:3] == (5 / 24, 11 / 24, 17 / 24)
    assert list(report.sent_at) == sorted(report.sent_at)
    assert 0 < report.p50_ms <= report.p99_ms


def test_progress_is_told_of_each_request() -> None:
    stream = FlightStream(flights(20))
    told: list[FlightRequest] = []

    async def send(port: int) -> None:
        await Traffic("127.0.0.1", port).send(stream, progress=told.append)

    serving(right, send)

    assert sorted(request.first for request in told) == [item.first for item in stream.requests]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(http(502, {"error": "down"}), "status 502", id="status"),
        pytest.param(http(200, b"<html>"), "wrong answer", id="no-json"),
        pytest.param(http(200, {"id": "other", "outputs": []}), "wrong answer", id="foreign-id"),
        pytest.param(http(200, {"outputs": [{"name": "y", "data": [1]}]}), "wrong answer", id="y"),
        pytest.param(b"rubbish\r\n\r\n", "unanswered", id="no-http"),
        pytest.param(CLOSE, "unanswered", id="closed"),
        pytest.param(http(200, b"{}")[:-1] + CLOSE, "unanswered", id="cut"),
    ],
)
def test_a_bad_answer_is_counted_and_costs_no_other_request(answer: bytes, reason: str) -> None:
    stream = FlightStream(flights(30), group_every=99)
    bad = stream.requests[4].id

    report = sent(stream, lambda request: answer if request["id"] == bad else right(request))

    assert report.failures == {reason: 1}
    assert [row for row, value in enumerate(report.probabilities) if value is None] == [4]


def test_a_connection_that_the_server_ends_is_opened_again() -> None:
    stream = FlightStream(flights(20), group_every=99)

    def closing(request: dict[str, Any]) -> bytes:
        return right(request).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)

    assert sent(stream, closing, connections=1).failures == {}


def test_a_server_that_is_not_there_fails_every_request_and_ends() -> None:
    stream = FlightStream(flights(5), group_every=99)

    async def closed(port: int) -> int:
        return port

    port = serving(right, closed)
    report = asyncio.run(Traffic("127.0.0.1", port).send(stream))

    assert report.failures == {"unanswered": 5}
    assert report.p50_ms == 0
    assert math.isnan(stream_auc(stream, report))
    assert flight_to_explain(stream, report) is None


def test_silence_ends_at_the_deadline() -> None:
    async def ask(port: int) -> None:
        client = HttpClient("127.0.0.1", port, timeout_s=0.05)
        with pytest.raises(Unanswered, match="within"):
            await client.post("/", b"{}")

    # The head of an answer that does not go on.
    serving(lambda _: b"HTTP/1.1 200 x\r\n", ask)


def test_an_interim_answer_is_not_the_answer() -> None:
    async def ask(port: int) -> tuple[int, bytes]:
        client = HttpClient("127.0.0.1", port)
        answer = await client.post("/", b"{}", headers={"A": "b"})
        client.close()
        return answer

    interim = b"HTTP/1.1 100 Continue\r\n\r\n"

    assert serving(lambda _: interim + http(200, b"{}"), ask) == (200, b"{}")


def test_chunked_answers_are_joined() -> None:
    async def ask(port: int) -> tuple[int, bytes]:
        client = HttpClient("127.0.0.1", port)
        answer = await client.post("/", b"{}")
        client.close()
        return answer

    chunked = b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"

    assert serving(lambda _: chunked, ask) == (200, b"{}")


def test_the_explained_flight_is_the_late_one_that_was_expected_most() -> None:
    stream = FlightStream(flights(12), group_every=99)
    report = sent(stream, right)

    chosen = flight_to_explain(stream, report)

    # Late are the rows 2, 5, 8 and 11, at 17, 11, 5 and 23 o'clock.
    assert chosen is not None
    assert chosen.first == 11
    # Hours of on-time flights: 5, 11, 23, 5, 17, 23, 11, 17. Of 32 pairs 14 are in order, 8 tied.
    ordered = sum(
        (late > on_time) + (late == on_time) / 2
        for late in (17, 11, 5, 23)
        for on_time in (5, 11, 23, 5, 17, 23, 11, 17)
    )
    assert stream_auc(stream, report) == pytest.approx(ordered / 32)


def test_a_model_that_refuses_the_reference_is_said() -> None:
    async def ask(port: int) -> None:
        with pytest.raises(ModelNotReady, match="status 500"):
            await ask_model(flights(3), host="127.0.0.1", port=port)

    serving(lambda _: http(500, {}), ask)
