"""Requests and answers of streams: which belong together, and when a request is finished."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.logger import Exchange
from sidelight.logger._grpc_body import GrpcLimits
from sidelight.logger._grpc_defer import Defer
from sidelight.logger._grpc_frames import frames
from sidelight.logger._grpc_method import METHODS
from sidelight.logger._grpc_recorder import Recorder
from sidelight.logger._grpc_stream import StreamRecording
from sidelight.logger._open_inference import ModelInferRequest, ModelInferResponse

METHOD = METHODS["/inference.GRPCInferenceService/ModelStreamInfer"]


class Stream:
    """A recording whose exchanges are kept."""

    def __init__(self, *, loop: Any = None, **limits: Any) -> None:
        self.exchanges: list[Exchange] = []
        self.offered = asyncio.Event()
        self.recorder = Recorder(self, limits=GrpcLimits(**limits))
        self.recording = StreamRecording(
            self.recorder, METHOD, [("ce-id", "call")], defer=Defer(self._now, self._now), loop=loop
        )

    def _now(self, offer: Callable[[Exchange], None], exchange: Exchange) -> None:
        offer(exchange)

    def wants(self, method: bytes, target: bytes, head: bytes) -> bool:
        raise NotImplementedError

    def offer(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self.offered.set()

    def ask(self, number: str = "") -> None:
        self.recording.request(ModelInferRequest(model_name="m", id=number).SerializeToString())

    def answer(self, number: str = "", text: str = "x", *, is_last: bool = False) -> None:
        response = ModelInferResponse(model_name=text, id=number)
        if is_last:
            response.parameters["triton_final_response"].bool_param = True
        response.outputs.add(name="y")
        self.recording.response(response.SerializeToString())

    @property
    def seen(self) -> list[tuple[str, list[str]]]:
        """The id of each exchange and what its answers say."""
        return [(item.request_id.decode(), said(item)) for item in self.exchanges]


def said(exchange: Exchange) -> list[str]:
    body = exchange.response_body
    several = b"content-type: application/grpc\r\n" in exchange.response_head
    messages = [item.message for item in frames(body)] if several else [body] if body else []
    return [ModelInferResponse.FromString(message).model_name for message in messages]


def test_no_callers_id_is_taken_where_none_is_trusted() -> None:
    stream = Stream(trusts_request_ids=False)
    for number in ("a", "b", "b"):
        stream.ask(number)
    stream.answer("a", "1")
    stream.answer("b", "2")
    stream.recording.end(0)

    ids = {name for name, _ in stream.seen}
    assert len(ids) == 3
    assert not ids & {"a", "b", "b.3", "call"}
    assert sorted(told for _, told in stream.seen) == [[], ["1"], ["2"]]


def test_answers_go_to_the_request_with_their_id_in_any_order() -> None:
    stream = Stream()
    for number in ("a", "b", "c"):
        stream.ask(number)
    for number, text in (("c", "1"), ("a", "2"), ("c", "3")):
        stream.answer(number, text)
    stream.recording.end(0)

    assert stream.seen == [("a", ["2"]), ("b", []), ("c", ["1", "3"])]
    assert [item.status for item in stream.exchanges] == [200] * 3


def test_a_last_answer_finishes_its_request_at_once() -> None:
    stream = Stream()
    stream.ask("a")
    stream.answer("a", "1")
    assert stream.seen == []
    stream.answer("a", "2", is_last=True)

    assert stream.seen == [("a", ["1", "2"])]


def test_answers_without_ids_go_to_the_oldest_without_answer_then_to_the_last() -> None:
    stream = Stream()
    stream.ask()
    stream.ask()
    for text in ("1", "2", "3"):
        stream.answer("", text)
    stream.recording.end(0)

    assert stream.seen == [("call", ["1"]), ("call.2", ["2", "3"])]


def test_an_id_that_comes_again_gets_a_number() -> None:
    stream = Stream()
    for text in ("1", "2"):
        stream.ask("a")
        stream.answer("a", text, is_last=True)

    assert stream.seen == [("a", ["1"]), ("a.2", ["2"])]


def test_two_requests_with_one_id_are_answered_in_order() -> None:
    stream = Stream()
    stream.ask("a")
    stream.ask("a")
    stream.answer("a", "1", is_last=True)
    stream.answer("a", "2", is_last=True)

    assert stream.seen == [("a", ["1"]), ("a.2", ["2"])]


def test_answers_to_nothing_are_counted() -> None:
    stream = Stream()
    stream.answer("a")
    stream.ask("a")
    stream.answer("b")
    stream.answer("a", "1", is_last=True)
    stream.answer("a", "late")

    assert stream.seen == [("a", ["1"])]
    assert stream.recorder.counts.unmatched == 3


def test_too_many_unfinished_requests_finish_the_oldest_that_was_answered() -> None:
    stream = Stream(max_unfinished=2)
    stream.ask("a")
    stream.ask("b")
    stream.answer("b", "1")
    stream.ask("c")
    assert stream.seen == [("b", ["1"])]
    stream.ask("d")

    assert stream.seen == [("b", ["1"]), ("a", [])]


def test_a_call_that_fails_gives_its_status_to_what_is_not_finished() -> None:
    stream = Stream()
    stream.ask("a")
    stream.ask("b")
    stream.answer("a", "1", is_last=True)
    stream.recording.initial((("early", "1"),))
    stream.recording.end(14, metadata=(("late", "2"),), aborted_by="client")

    first, second = stream.exchanges
    assert (first.status, first.aborted_by) == (200, "")
    assert (second.status, second.aborted_by) == (503, "client")
    assert b"grpc-status: 14\r\nearly: 1\r\nlate: 2\r\n" in second.response_head


def test_an_answered_request_is_finished_when_no_answer_came_for_a_while() -> None:
    async def main() -> None:
        stream = Stream(loop=asyncio.get_running_loop(), settle_s=0.01)
        stream.ask("a")
        stream.ask("b")
        stream.answer("a", "1")
        async with asyncio.timeout(60):
            await stream.offered.wait()
        assert stream.seen == [("a", ["1"])]
        stream.recording.end(0)
        assert stream.seen == [("a", ["1"]), ("b", [])]

    asyncio.run(main())


def test_the_latency_of_a_request_ends_with_its_last_answer() -> None:
    stream = Stream()
    stream.ask("a")
    stream.answer("a")
    stream.ask("b")
    stream.answer("b")
    stream.recording.end(0)

    first, second = stream.exchanges
    assert first.finished_ns <= second.started_ns
    assert first.latency_ms == pytest.approx((first.finished_ns - first.started_ns) / 1e6, abs=0.01)


_EVENTS = st.lists(
    st.tuples(st.sampled_from(["ask", "answer", "last"]), st.sampled_from(["", "a", "b", "c"]))
)


@given(_EVENTS, st.integers(1, 4))
def test_every_request_becomes_one_exchange_and_every_answer_is_in_one_or_counted(
    events: list[tuple[str, str]], max_unfinished: int
) -> None:
    stream = Stream(max_unfinished=max_unfinished)
    n_asked = n_answered = 0
    for kind, number in events:
        if kind == "ask":
            stream.ask(number)
            n_asked += 1
        else:
            stream.answer(number, is_last=kind == "last")
            n_answered += 1
    stream.recording.end(0)

    assert len(stream.exchanges) == n_asked
    assert len({item.request_id for item in stream.exchanges}) == n_asked
    counts = stream.recorder.counts
    assert sum(len(said(item)) for item in stream.exchanges) + counts.unmatched == n_answered
    assert (counts.tap_errors, counts.captured_bytes) == (0, 0)


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=30))))
def test_garbage_in_a_stream_raises_nothing(messages: list[tuple[bool, bytes]]) -> None:
    stream = Stream()
    for is_request, message in messages:
        if is_request:
            stream.recording.request(message)
        else:
            stream.recording.response(message)
    stream.recording.end(0)

    assert stream.recorder.counts.tap_errors == 0
    assert len(stream.exchanges) == sum(is_request for is_request, _ in messages)
