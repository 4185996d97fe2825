import hashlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.logger import Capture, Exchange, KeptHeader, Sampling, SamplingRule

keys = st.binary(min_size=1, max_size=40)
rates = st.floats(0, 1)


def exchange(*lines: bytes, **changes: Any) -> Exchange:
    fields: dict[str, Any] = {
        "method": b"POST",
        "target": b"/v2/models/m/infer?x=/admin/",
        "request_head": b"\r\n".join((b"POST / HTTP/1.1", *lines, b"", b"")),
        "request_body": b"{}",
        "response_head": b"HTTP/1.1 200 OK\r\n\r\n",
        "response_body": b"{}",
        "status": 200,
        "started_ns": 0,
        "finished_ns": 0,
        "latency_ms": 5.0,
    }
    return Exchange(**(fields | changes))


def rate_of(sampling: Sampling, captured: Exchange, key: bytes = b"r-1") -> float | None:
    return sampling.rate_of(captured, key, "prod/m")


@given(keys)
def test_the_hash_is_the_one_that_is_documented(key: bytes) -> None:
    expected = int.from_bytes(hashlib.sha256(key).digest()[:8], "big") / 2**64

    assert Sampling.share_of(key) == expected


@given(keys, rates)
def test_a_key_is_kept_when_it_stands_below_the_rate(key: bytes, rate: float) -> None:
    kept = rate_of(Sampling(rate=rate), exchange(), key)

    assert kept == (rate if Sampling.share_of(key) < rate else None)


@given(keys, rates, rates)
def test_what_is_kept_at_one_rate_is_kept_at_any_higher_one(
    key: bytes, one: float, other: float
) -> None:
    low, high = sorted((one, other))

    if rate_of(Sampling(rate=low), exchange(), key) is not None:
        assert rate_of(Sampling(rate=high), exchange(), key) == high


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.9])
def test_the_share_that_is_kept_is_the_rate(rate: float) -> None:
    n = 40_000
    sampling = Sampling(rate=rate)

    kept = sum(rate_of(sampling, exchange(), b"key-%d" % number) is not None for number in range(n))

    # Four standard deviations of a binomial; the keys are fixed, so it holds always or never.
    assert abs(kept - n * rate) < 4 * math.sqrt(n * rate * (1 - rate))


@given(keys)
def test_nothing_is_kept_at_zero_and_everything_at_one(key: bytes) -> None:
    assert rate_of(Sampling(rate=0), exchange(), key) is None
    assert rate_of(Sampling(rate=1), exchange(), key) == 1


def test_a_header_can_be_the_key() -> None:
    sampling = Sampling(rate=0.5, key_header="X-Session")
    decisions = {
        rate_of(sampling, exchange(b"x-session: s-7"), b"request-%d" % number)
        for number in range(64)
    }

    assert len(decisions) == 1
    without = {rate_of(sampling, exchange(), b"request-%d" % number) for number in range(64)}
    assert without == {0.5, None}


def test_the_first_rule_that_matches_gives_the_rate() -> None:
    sampling = Sampling(
        rate=0,
        rules=(
            SamplingRule(rate=0, deployment="dev/*"),
            SamplingRule(rate=1, path="/admin/*"),
            SamplingRule(rate=0, statuses=("404", "5xx"), path="/v2/*"),
            SamplingRule(rate=1, deployment="prod/?"),
        ),
    )

    assert rate_of(sampling, exchange()) == 1
    assert sampling.rate_of(exchange(), b"r", "dev/m") is None
    assert sampling.rate_of(exchange(target=b"/admin/x"), b"r", "test/m") == 1
    assert sampling.rate_of(exchange(), b"r", "test/m") is None
    for status, expected in ((404, None), (403, 1), (500, None), (599, None), (200, 1)):
        assert rate_of(sampling, exchange(status=status)) == expected


def test_errors_slow_answers_and_marked_requests_are_kept_with_certainty() -> None:
    sampling = Sampling(
        rate=0,
        keep_errors=True,
        keep_slower_than_ms=100,
        keep_headers=(KeptHeader(name="X-Debug"), KeptHeader(name="X-Level", value="full")),
    )

    for kept in (
        exchange(status=400),
        exchange(status=502),
        exchange(aborted_by="client"),
        exchange(latency_ms=100.1),
        exchange(b"x-debug:"),
        exchange(b"X-LEVEL: full"),
    ):
        assert rate_of(sampling, kept) == 1
    for other in (exchange(latency_ms=100), exchange(b"X-Level: Full"), exchange(b"X-Debugger: 1")):
        assert rate_of(sampling, other) is None


def test_the_decision_and_the_event_speak_of_one_id() -> None:
    capture, sampling = Capture(), Sampling(rate=0.5)
    for number in range(32):
        captured = exchange(request_body=b'{"inputs":[],"id":"b-%d"}' % number)
        request_id = capture.identify(captured)
        request, _ = capture.events(captured, 0.5)

        assert request_id == b"b-%d" % number
        assert dict(request.headers())[b"ce-id"] == request_id
        assert dict(request.headers())[b"ce-samplingrate"] == b"0.5"
        assert rate_of(sampling, captured, request_id) == rate_of(
            sampling, exchange(), b"b-%d" % number
        )


def test_an_id_that_is_made_for_the_decision_stays() -> None:
    capture, captured = Capture(), exchange()

    made = capture.identify(captured)

    assert made
    assert capture.identify(captured) == made
    assert [dict(event.headers())[b"ce-id"] for event in capture.events(captured)] == [made, made]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Sampling(rate=1.1), "rate"),
        (lambda: Sampling(rate=math.nan), "rate"),
        (lambda: SamplingRule(rate=-0.1), "rate"),
        (lambda: SamplingRule(rate=1, statuses=("6xx",)), "statuses"),
        (lambda: SamplingRule(rate=1, statuses=("4x",)), "statuses"),
        (lambda: SamplingRule(rate=1, path=""), "path"),
        (lambda: Sampling(key_header="X Session"), "key_header"),
        (lambda: Sampling(keep_slower_than_ms=-1), "keep_slower_than_ms"),
        (lambda: KeptHeader(name=""), "name"),
    ],
)
def test_what_cannot_be_meant_is_refused(make: Any, named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}: expected"):
        make()
