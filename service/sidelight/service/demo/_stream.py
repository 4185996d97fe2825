"""Flights as the requests, in order of departure, that a client of the model would send."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import pandas as pd

from sidelight.service.demo._flights import FEATURES
from sidelight.service.demo._inference_protocol import encode_infer

_DATE_LENGTH = len("2013-04-01")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlightRequest:
    """One request: consecutive flights of the stream.

    Parameters
    ----------
    id : str
        Of the first flight, such as ``2013-04-01-UA-1545-EWR``; unique in the stream.
    first : int
        Place of its first row in the stream, from 0.
    n_rows : int
        At least 1.

    """

    id: str
    first: int
    n_rows: int

    @property
    def rows(self) -> range:
        """Places of its rows in the stream."""
        return range(self.first, self.first + self.n_rows)


class FlightStream:
    """A table of flights, cut into requests.

    Parameters
    ----------
    flights : pandas.DataFrame, shape (n_rows, >= 14)
        From ``stream_rows``, in order of departure. It is read, not kept.
    group_every : int, default 20
        Each request of that number carries several flights, all others one.
    group_rows : int, default 5
        Flights in such a request.

    """

    def __init__(
        self, flights: pd.DataFrame, *, group_every: int = 20, group_rows: int = 5
    ) -> None:
        # Lists of Python values: a request is written from them in 10 us, from a frame in 500 us.
        self._columns = {name: _with_none(flights[name]) for name in FEATURES}
        self._departs: list[datetime] = [moment.to_pydatetime() for moment in flights["departs"]]
        self._delays: list[float | None] = _with_none(flights["arr_delay"])
        self._late: list[float | None] = _with_none(flights["late"])
        self.requests = tuple(_cut(flights["request_id"].tolist(), group_every, group_rows))

    @property
    def n_rows(self) -> int:
        """Flights in the stream."""
        return len(self._departs)

    def body(self, request: FlightRequest) -> bytes:
        """Return the request as the V2 protocol has it."""
        part = slice(request.first, request.first + request.n_rows)
        columns = {name: values[part] for name, values in self._columns.items()}
        return encode_infer(request.id, columns)

    def features(self, row: int) -> dict[str, Any]:
        """Return one flight's features by name, None where missing."""
        return {name: values[row] for name, values in self._columns.items()}

    def departs(self, row: int) -> datetime:
        """Return the scheduled departure, New York's clock; rows beyond the ends give the ends."""
        return self._departs[min(max(row, 0), self.n_rows - 1)]

    def delay(self, row: int) -> float | None:
        """Return the minutes late at arrival; None when the flight never arrived."""
        return self._delays[row]

    def late(self, row: int) -> bool | None:
        """Return whether the flight was more than 15 minutes late; None when it never arrived."""
        value = self._late[row]
        return None if value is None else value > 0


def date_of(request_id: str) -> date:
    """Return the day of flight that a request id begins with.

    Raises
    ------
    ValueError
        If it does not begin with a date.

    Examples
    --------
    >>> date_of("2013-04-01-UA-1545-EWR").isoformat()
    '2013-04-01'

    """
    return date.fromisoformat(request_id[:_DATE_LENGTH])


def _cut(ids: list[str], group_every: int, group_rows: int) -> Iterator[FlightRequest]:
    first = number = 0
    while first < len(ids):
        number += 1
        n_rows = group_rows if number % group_every == 0 else 1
        n_rows = min(n_rows, len(ids) - first)
        yield FlightRequest(id=ids[first], first=first, n_rows=n_rows)
        first += n_rows


def _with_none(column: "pd.Series[Any]") -> list[Any]:
    return [None if value != value else value for value in column.tolist()]  # noqa: PLR0124 - NaN
