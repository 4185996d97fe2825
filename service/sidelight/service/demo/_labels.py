"""What became of the flights, told a day after they were to leave."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sidelight.service.demo._stream import FlightRequest, FlightStream

Feedback = dict[str, Any]

_DELAY = timedelta(days=1)


def labels_for(
    stream: FlightStream, request: FlightRequest, *, deployment: str, time: str
) -> list[Feedback]:
    """Return one item of ``POST /v1/feedback`` for each flight of a request that arrived.

    Parameters
    ----------
    stream : FlightStream
        That the request is part of.
    request : FlightRequest
        What was asked.
    deployment : str
        ``namespace/name``.
    time : str
        When the labels are told, RFC 3339.

    """
    return [
        {
            "deployment": deployment,
            "request_id": request.id,
            "row": place,
            "labels": {"late": stream.late(row), "arr_delay": stream.delay(row)},
            "time": time,
        }
        for place, row in enumerate(request.rows)
        if stream.late(row) is not None
    ]


class LabelFeed:
    """Hands out the labels of flights that are a day past, each once, in lists to post.

    Parameters
    ----------
    stream : FlightStream
        What is being sent.
    deployment : str
        ``namespace/name`` that the labels are for.
    list_rows : int, default 500
        Items of a list.

    """

    def __init__(self, stream: FlightStream, *, deployment: str, list_rows: int = 500) -> None:
        self._stream = stream
        self._deployment = deployment
        self._list_rows = list_rows
        self._next = 0
        self._waiting: list[Feedback] = []

    def due(self, row: int) -> Iterator[list[Feedback]]:
        """Yield full lists of what is a day past when the stream has come to ``row``."""
        moment = self._stream.departs(row) - _DELAY
        requests = self._stream.requests
        while self._next < len(requests):
            request = requests[self._next]
            if self._stream.departs(request.rows[-1]) > moment:
                return
            self._take(request)
            while len(self._waiting) >= self._list_rows:
                yield self._cut()

    def rest(self) -> Iterator[list[Feedback]]:
        """Yield everything that was not handed out yet."""
        for request in self._stream.requests[self._next :]:
            self._take(request)
        while self._waiting:
            yield self._cut()

    def _take(self, request: FlightRequest) -> None:
        self._next += 1
        now = datetime.now(UTC).isoformat()
        self._waiting += labels_for(self._stream, request, deployment=self._deployment, time=now)

    def _cut(self) -> list[Feedback]:
        items = self._waiting[: self._list_rows]
        del self._waiting[: self._list_rows]
        return items
