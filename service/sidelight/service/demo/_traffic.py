"""Sends the stream of flights to the model, in order, and checks every answer."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import msgspec

from sidelight.service.demo._http_client import HttpClient, Unanswered
from sidelight.service.demo._inference_protocol import MODEL_NAME
from sidelight.service.demo._ranking import area_under_curve
from sidelight.service.demo._stream import FlightRequest, FlightStream

_INFER = f"/v2/models/{MODEL_NAME}/infer"
_OK = 200


class _Output(msgspec.Struct):
    name: str
    data: list[float | bool]


class _Answer(msgspec.Struct):
    outputs: list[_Output]
    id: str | None = None


_decoder = msgspec.json.Decoder(_Answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficReport:
    """What came of a stream.

    Parameters
    ----------
    requests, rows : int
        Sent, answered or not.
    failures : mapping of str to int
        Requests without a right answer, by reason: ``status 502``, ``unanswered``, ``wrong
        answer``. Nothing is sent again, so that one request is one exchange of the proxy.
    seconds : float
        From the first request to the last answer.
    p50_ms, p99_ms : float
        Of a request, in the client.
    probabilities : tuple of float or None, shape (n_rows,)
        The model's answers in the order of the stream; None where there was none.
    sent_at : tuple of float, shape (requests,)
        When each request was sent, seconds since 1970, ascending.

    """

    requests: int
    rows: int
    failures: Mapping[str, int]
    seconds: float
    p50_ms: float
    p99_ms: float
    probabilities: tuple[float | None, ...]
    sent_at: tuple[float, ...]


class Traffic:
    """A client of the model that keeps a few requests under way.

    Parameters
    ----------
    host, port : str, int
        Of the proxy, or of the model itself.
    connections : int, default 8
        Requests under way at once. They start in order; with few under way they also arrive
        nearly so: a flight is at most ``connections - 1`` places from its own.

    """

    def __init__(self, host: str, port: int, *, connections: int = 8) -> None:
        self._clients = [HttpClient(host, port) for _ in range(connections)]

    async def send(
        self, stream: FlightStream, *, progress: Callable[[FlightRequest], None] | None = None
    ) -> TrafficReport:
        """Send all of a stream.

        Parameters
        ----------
        stream : FlightStream
            In the order in which it is to arrive.
        progress : callable, optional
            Called with each request when its answer was checked; must not block.

        """
        journey = _Journey(stream, progress)
        started = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                for client in self._clients:
                    group.create_task(journey.travel(client))
        finally:
            for client in self._clients:
                client.close()
        return journey.report(time.perf_counter() - started)


class _Journey:
    def __init__(
        self, stream: FlightStream, progress: Callable[[FlightRequest], None] | None
    ) -> None:
        self._stream = stream
        self._progress = progress
        # One iterator for all connections: whoever is free takes the next flight.
        self._requests: Iterator[FlightRequest] = iter(stream.requests)
        self._failures: Counter[str] = Counter()
        self._latencies_ms: list[float] = []
        self._sent_at: list[float] = []
        self._probabilities: list[float | None] = [None] * stream.n_rows

    async def travel(self, client: HttpClient) -> None:
        for request in self._requests:
            body = self._stream.body(request)
            self._sent_at.append(time.time())
            started = time.perf_counter()
            try:
                status, answer = await client.post(
                    _INFER, body, headers={"X-Request-Id": request.id}
                )
            except Unanswered:
                self._failures["unanswered"] += 1
            else:
                self._latencies_ms.append((time.perf_counter() - started) * 1000)
                self._check(request, status, answer)
            if self._progress is not None:
                self._progress(request)

    def _check(self, request: FlightRequest, status: int, body: bytes) -> None:
        if status != _OK:
            self._failures[f"status {status}"] += 1
            return
        try:
            answer = _decoder.decode(body)
        except msgspec.DecodeError:
            self._failures["wrong answer"] += 1
            return
        values = {output.name: output.data for output in answer.outputs}.get("probability", [])
        if answer.id != request.id or len(values) != request.n_rows:
            self._failures["wrong answer"] += 1
            return
        self._probabilities[request.first : request.first + request.n_rows] = values

    def report(self, seconds: float) -> TrafficReport:
        ordered = sorted(self._latencies_ms) or [0.0]
        return TrafficReport(
            requests=len(self._stream.requests),
            rows=self._stream.n_rows,
            failures=dict(self._failures),
            seconds=seconds,
            p50_ms=ordered[len(ordered) // 2],
            p99_ms=ordered[len(ordered) * 99 // 100],
            probabilities=tuple(self._probabilities),
            sent_at=tuple(self._sent_at),
        )


def stream_auc(stream: FlightStream, report: TrafficReport) -> float:
    """Return the area under the ROC curve of the answers, on the flights that arrived."""
    pairs = [
        (late, probability)
        for row, probability in enumerate(report.probabilities)
        if probability is not None and (late := stream.late(row)) is not None
    ]
    if not pairs:
        return float("nan")
    came_true, scores = zip(*pairs, strict=True)
    return area_under_curve(came_true, scores)


def flight_to_explain(stream: FlightStream, report: TrafficReport) -> FlightRequest | None:
    """Choose the late flight that the model was surest of, among the requests with one flight."""
    candidates = [
        (probability, request)
        for request in stream.requests
        if request.n_rows == 1
        and stream.late(request.first)
        and (probability := report.probabilities[request.first]) is not None
    ]
    return max(candidates, key=lambda pair: pair[0])[1] if candidates else None
