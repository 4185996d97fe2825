"""What an inference says beside its payloads: time, latency, status, version, tags."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sidelight.adapters._decoding_tags import tags_of
from sidelight.adapters.dialects import Half
from sidelight.logger import Pair
from sidelight.payloads import Event

_SELDON_TYPES: Final = "io.seldon."
_STATUSES: Final = range(1000)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_YEARS: Final = ("1678", "2261")  # whole years that 64 bits of nanoseconds hold
_NANOSECONDS: Final = pa.timestamp("ns", tz="UTC")
_MICROSECONDS: Final = pa.timestamp("us", tz="UTC")
_REFUSES_YEARS: Final = int(pa.__version__.partition(".")[0]) >= 23  # noqa: PLR2004 - see below
_NOT_A_TIME: Final = np.iinfo(np.int64).min
_BELOW_MICROSECONDS: Final = re.compile(r"[.,]\d{6}(\d{1,3})")

Text = str | bytes | None


@dataclass(slots=True)
class Facts:
    """Facts of one inference, before they become columns.

    ``time`` is the text that the sender gave; ``answered`` that of the response, only where the
    difference is the server's latency; ``received_ns`` the receive time of the first half.
    """

    time: str | None
    answered: str | None
    received_ns: int
    latency_ms: float | None
    status: int | None
    version: str | None
    is_synthetic: bool
    request_ref: str | None
    response_ref: str | None
    tags: dict[str, Any] = field(default_factory=dict)


def facts_of(pair: Pair, request: Half | None, response: Half | None) -> Facts:
    """Return what attributes and bodies of both halves say."""
    events = [event for event in (pair.response, pair.request) if event]
    latency_ms = status = version = answered = None
    for event in events:
        extensions = event.extensions
        if latency_ms is None and "latencyms" in extensions:
            latency_ms = _latency(extensions["latencyms"])
        if status is None and "statuscode" in extensions:
            status = _status(extensions["statuscode"])
        version = version or extensions.get("modelversion")
    if version is None:
        version = _version(pair, events, response)
    has_both = pair.request and pair.response and latency_ms is None
    if has_both and "recordedtime" in events[0].extensions:
        # Since KServe 0.18 the times are those of arrival and completion; before, and in
        # Seldon's events, they are those of sending.
        answered = events[0].time
    first = events[-1]
    return Facts(
        time=first.time,
        answered=answered,
        received_ns=first.received_ns,
        latency_ms=latency_ms,
        status=status,
        version=version or None,
        is_synthetic=pair.key.is_synthetic
        or (request is not None and bool(request.facts.get("synthetic"))),
        request_ref=str(pair.request.ref) if pair.request else None,
        response_ref=str(pair.response.ref) if pair.response else None,
        tags=tags_of(events, request, response),
    )


def times(
    begun: Sequence[Text], answered: Sequence[Text] | None, received_ns: Sequence[int]
) -> tuple[pa.Array, NDArray[np.float64] | None]:
    """Return occurrence times, microseconds UTC, and how long answers took.

    Parameters
    ----------
    begun : sequence of str, bytes or None
        When requests were sent, as it was written.
    answered : sequence of str, bytes or None; or None
        When responses were; None when nobody says.
    received_ns : sequence of int
        When the first halves were received, for where there is no RFC 3339 time.

    Returns
    -------
    times : pyarrow.Array
        Microseconds UTC.
    latencies : array of float or None
        Milliseconds; not a number where one of the times is missing or they are the wrong way
        round.

    """
    moments = _parsed(begun)
    latencies = None
    if answered is not None:
        ends = _parsed(answered)
        # As numbers, which wrap beyond 292 years where NumPy 2.5 raises for times.
        spent_ns = ends.view(np.int64) - moments.view(np.int64)
        latencies = np.where((ends >= moments) & (spent_ns >= 0), spent_ns / 1e6, np.nan)
    received = np.fromiter(received_ns, dtype=np.int64, count=len(received_ns))
    nanoseconds = np.where(np.isnat(moments), received, moments.astype(np.int64))
    return pa.array(nanoseconds // 1000).cast(_MICROSECONDS), latencies


def _parsed(texts: Sequence[Text]) -> Any:
    """Return ``datetime64[ns]``; NaT where there is no RFC 3339 time."""
    try:
        strings = pa.array(texts, type=pa.string())
        array = strings.cast(_NANOSECONDS) if _can_be_held(strings) else _one_by_one(texts)
    except (pa.ArrowInvalid, UnicodeEncodeError):
        array = _one_by_one(texts)
    # As numbers: of times Arrow makes NumPy's with pandas alone, which takes a while to load.
    numbers = array.cast(pa.int64())
    if numbers.null_count:
        numbers = numbers.fill_null(_NOT_A_TIME)
    return numbers.to_numpy().view("datetime64[ns]")


def _can_be_held(strings: pa.Array) -> bool:
    """Return whether nanoseconds hold all years: pyarrow before 23 makes other times of them."""
    if _REFUSES_YEARS:
        return True
    years = pc.min_max(pc.utf8_slice_codeunits(strings, 0, 4)).as_py()
    return years["min"] is None or _YEARS[0] <= years["min"] <= years["max"] <= _YEARS[1]


def _one_by_one(texts: Sequence[Text]) -> pa.Array:
    return pa.array([_nanoseconds(text) for text in texts], type=pa.int64()).cast(_NANOSECONDS)


def _nanoseconds(text: Text) -> int | None:
    if isinstance(text, bytes):
        text = text.decode()
    try:
        # RFC 3339 5.6 allows ``t`` and ``z``; Python reads ``Z`` alone.
        moment = datetime.fromisoformat((text or "").upper())
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        nanoseconds = (moment - _EPOCH) // timedelta(microseconds=1) * 1000
        # As exact as Arrow: who else is in a batch must not change what a row says.
        if fine := _BELOW_MICROSECONDS.search(text or ""):
            nanoseconds += int(fine[1].ljust(3, "0"))
    except (ValueError, OverflowError):
        return None
    limits = np.iinfo(np.int64)
    return nanoseconds if limits.min < nanoseconds <= limits.max else None


def _latency(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) and value >= 0 else None


def _status(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and int(text[:9]) in _STATUSES else None


def _version(pair: Pair, events: Sequence[Event], response: Half | None) -> str | None:
    if response is not None and (version := response.facts.get("version")):
        return str(version)
    # A predictor of a SeldonDeployment is what other platforms call a version.
    return pair.key.endpoint if events[0].type.startswith(_SELDON_TYPES) else None
