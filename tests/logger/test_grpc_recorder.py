"""Recordings of single calls: bounds of what is kept, and of what waits to be hashed."""

import hashlib
import threading
from collections.abc import Callable
from typing import Any

import pytest

from sidelight.logger import Exchange
from sidelight.logger._grpc_body import GrpcLimits
from sidelight.logger._grpc_defer import Defer
from sidelight.logger._grpc_recorder import CallRecording, Recorder, returned_id
from sidelight.logger._open_inference import ModelInferRequest

PATH = "/inference.GRPCInferenceService/ModelInfer"


class Calls:
    """A recorder whose exchanges are kept."""

    def __init__(self, **limits: Any) -> None:
        self.exchanges: list[Exchange] = []
        self.recorder = Recorder(self, limits=GrpcLimits(**limits))

    def wants(self, method: bytes, target: bytes, head: bytes) -> bool:
        return (method, target, head[:4]) == (b"POST", PATH.encode(), b"POST")

    def offer(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    def begin(self, message: bytes) -> CallRecording:
        recording = self.recorder.call(PATH, (), message, Defer(_now, _now))
        assert recording is not None
        return recording


def _now(offer: Callable[[Exchange], None], exchange: Exchange) -> None:
    offer(exchange)


def test_calls_in_work_share_one_bound() -> None:
    calls = Calls(max_captured_bytes=10)
    first, second = calls.begin(b"12345678"), calls.begin(b"abcdefgh")
    assert calls.recorder.counts.captured_bytes == 10
    for recording in (second, first):
        recording.end(0)
    calls.recorder.close()

    by_body = {item.request_body: item for item in calls.exchanges}
    assert by_body.keys() == {b"12345678", b"ab"}
    cut = by_body[b"ab"]
    assert (cut.request_cut, cut.request_digest) == (6, hashlib.sha256(b"abcdefgh").digest())
    assert calls.recorder.counts.captured_bytes == 0


def test_when_too_much_waits_to_be_hashed_the_digest_is_left_out() -> None:
    calls = Calls(capture_limit=3, max_captured_bytes=10)
    go_on = threading.Event()

    def wait() -> None:
        assert go_on.wait(60)

    # More than the bound alone: the first is taken whatever its size.
    assert calls.recorder.finish(wait, 100)
    recording = calls.begin(b"abcdef")
    recording.response(b"ghijkl")
    recording.end(0)

    (exchange,) = calls.exchanges
    assert (exchange.request_body, exchange.response_body) == (b"abc", b"ghi")
    assert (exchange.request_cut, exchange.response_cut) == (3, 3)
    assert (exchange.request_digest, exchange.response_digest) == (b"", b"")
    go_on.set()
    calls.recorder.close()


def test_an_error_of_ours_ends_no_call() -> None:
    calls = Calls()
    recording = calls.begin(b"x")
    recording.initial(None)  # type: ignore[arg-type] # what is wrong is found later
    recording.end(0)

    assert (calls.exchanges, calls.recorder.counts.tap_errors) == ([], 1)
    assert calls.recorder.counts.captured_bytes == 0
    assert calls.recorder.call("/a.B/C", (), b"", Defer(_now, _now)) is None


@pytest.mark.parametrize("metadata", [(), (("x-request-id", "same"),)])
def test_no_callers_id_is_taken_where_none_is_trusted(
    metadata: tuple[tuple[str, str], ...],
) -> None:
    calls = Calls(trusts_request_ids=False)
    message = ModelInferRequest(id="same").SerializeToString()

    for _ in range(2):
        recording = calls.recorder.call(PATH, metadata, message, Defer(_now, _now))
        assert recording is not None
        told = returned_id(recording, ())
        assert told == (("x-request-id", recording.request_id.decode()),)
        # What the server says stays the caller's answer, and is not the id either.
        assert returned_id(recording, (("x-request-id", "same"),)) == ()
        recording.end(0)

    assert len({item.request_id for item in calls.exchanges} | {b"", b"same"}) == 4
