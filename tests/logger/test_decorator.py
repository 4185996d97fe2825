# ruff: noqa: ARG001 - arguments are recorded, not used
import asyncio
import inspect
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sidelight.adapters.dialects import DIALECTS, read_payload
from sidelight.logger._decorator import captured
from sidelight.logger._emitter import Emitter
from sidelight.logger._emitter_thread import ThreadedEmitter
from sidelight.logger._exchange import Exchange
from sidelight.logger._selection import Selection


class Kept(ThreadedEmitter):
    """Keeps what it is offered."""

    def __init__(self, selection: Selection | None = None) -> None:
        def refuse(folder: Path | None) -> Emitter:
            raise AssertionError("nothing is delivered here")

        super().__init__(refuse, selection=selection)
        self.exchanges: list[Exchange] = []

    def offer(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    def one(self) -> Exchange:
        (exchange,) = self.exchanges
        return exchange

    def bodies(self) -> tuple[Any, Any]:
        """Return what the decoder reads of the only exchange, by name."""
        exchange = self.one()
        return _read(exchange.request_body, "request"), _read(exchange.response_body, "response")


def _read(body: bytes, side: Any) -> dict[str, Any]:
    half = read_payload(body, side, DIALECTS)
    assert half.reason is None
    return {
        str(tensor.name): values
        for tensor, values in zip(half.layout.tensors, half.values, strict=True)
    }


@pytest.fixture
def tap() -> Kept:
    return Kept()


def test_arguments_and_result_of_a_function_are_recorded(tap: Kept) -> None:
    @captured(sink=tap, model="sums", version="3")
    def predict(rows: Any, scale: float = 2.0) -> Any:
        """Sum rows."""
        return rows.sum(axis=1) * scale

    answer = predict(np.array([[1.0, 2.0], [3.0, 4.0]]))

    assert answer.tolist() == [6.0, 14.0]
    assert predict.__doc__ == "Sum rows."
    exchange = tap.one()
    assert exchange.target == b"/v2/models/sums/versions/3/infer"
    assert exchange.request_head == (
        b"POST /v2/models/sums/versions/3/infer HTTP/1.1\r\ncontent-type: application/json\r\n\r\n"
    )
    assert exchange.response_head == b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"
    assert (exchange.status, exchange.method) == (200, b"POST")
    # A single value beside a table belongs to each of its rows.
    assert tap.bodies() == ({"rows": [1, 2, 3, 4], "scale": [2, 2]}, {"y": [6, 14]})


def test_single_values_are_one_row(tap: Kept) -> None:
    @captured(sink=tap)
    def predict(age: int, *, city: str, premium: bool | None = None) -> str:
        return f"{age} {city}"

    assert predict(3, city="Bern") == "3 Bern"
    assert tap.one().target == b"/v2/models/predict/infer"
    assert tap.bodies() == ({"age": [3], "city": ["Bern"]}, {"y": ["3 Bern"]})


def test_what_a_function_changes_is_recorded_as_it_was(tap: Kept) -> None:
    @captured(sink=tap)
    def predict(rows: Any) -> Any:
        rows *= 0
        return rows

    result = predict(np.array([1.0, 2.0]))
    result += 5

    assert tap.bodies() == ({"rows": [1, 2]}, {"y": [0, 0]})


def test_a_frame_in_and_several_arrays_out(tap: Kept) -> None:
    @captured(sink=tap)
    def predict(frame: pd.DataFrame) -> Any:
        return np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]])

    predict(pd.DataFrame({"age": [1, 2], "city": ["a", "b"]}))

    assert tap.bodies() == (
        {"age": [1, 2], "city": ["a", "b"]},
        {"y0": [0, 1], "y1": [0.9, 0.1, 0.2, 0.8]},
    )


def test_methods_are_recorded_without_their_object(tap: Kept) -> None:
    class Model:
        bias = 1.0

        @captured(sink=tap)
        def predict(self, x: list[float]) -> list[float]:
            return [one + self.bias for one in x]

        @classmethod
        @captured(sink=tap)
        def load(cls, name: str) -> str:
            return f"{cls.__name__} {name}"

        @staticmethod
        @captured(sink=tap)
        def check(value: int) -> bool:
            return bool(value)

    assert Model().predict([1.0]) == [2.0]
    assert Model.load("a") == "Model a"
    assert Model.check(1) is True
    assert [json.loads(one.request_body)["inputs"][0]["name"] for one in tap.exchanges] == [
        "x",
        "name",
        "value",
    ]
    assert tap.exchanges[0].target == b"/v2/models/predict/infer"
    assert tap.left_out == {}


def test_objects_that_can_be_called_bound_methods_and_parts_are_recorded(tap: Kept) -> None:
    class Model:
        def __call__(self, x: int) -> int:
            return x + 1

        def predict(self, x: int) -> int:
            return x + 2

        async def later(self, x: int) -> int:
            return x + 3

    wrap = captured(sink=tap, model="m")

    assert wrap(Model())(1) == 2
    assert wrap(Model().predict)(1) == 3
    assert wrap(partial(Model().predict, 1))() == 3
    assert asyncio.run(wrap(Model().later)(1)) == 4
    assert wrap(max)(1, 2) == 2
    assert len(tap.exchanges) == 5


def test_arguments_that_gather_others_are_named(tap: Kept) -> None:
    @captured(sink=tap)
    def predict(first: int, *rest: int, **named: int) -> None: ...

    predict(1, 2, 3, a=4)

    request = json.loads(tap.one().request_body)["inputs"]
    assert {one["name"]: one["data"] for one in request} == {
        "first": [1],
        "arg0": [2],
        "arg1": [3],
        "a": [4],
    }


def test_only_the_arguments_that_are_named_are_recorded(tap: Kept) -> None:
    @captured(sink=tap, arguments=["x"])
    def predict(x: int, session: object) -> int:
        return x

    predict(1, object())

    assert tap.bodies()[0] == {"x": [1]}
    assert tap.left_out == {}


def test_features_get_the_names_that_are_given(tap: Kept) -> None:
    @captured(sink=tap, feature_names=["age", "income"])
    def predict(x: Any) -> Any:
        return [1]

    predict([3, 4.5])

    assert tap.bodies()[0] == {"age": [3], "income": [4.5]}


@pytest.mark.parametrize("kind", [list, np.array])
def test_as_many_results_as_features_are_results(tap: Kept, kind: Any) -> None:
    @captured(sink=tap, feature_names=["age", "income"])
    def predict(rows: Any) -> Any:
        return kind([sum(row) for row in rows])

    predict([[3, 4], [5, 6]])

    assert tap.bodies()[1] == {"y": [7, 11]}


def test_the_request_id_comes_from_an_argument(tap: Kept) -> None:
    @captured(sink=tap, request_id="key")
    def predict(x: int, key: object = None) -> int:
        return x

    predict(1, "r1")
    predict(1, key=7)
    predict(1)

    assert [one.request_id for one in tap.exchanges] == [b"r1", b"7", b""]
    assert b"key" not in tap.exchanges[0].request_body


def test_the_request_id_comes_from_a_context_variable(tap: Kept) -> None:
    current: ContextVar[str | None] = ContextVar("current")

    @captured(sink=tap, request_id=current)
    async def predict(x: int) -> int:
        return x

    async def ask(name: str) -> None:
        current.set(name)
        await predict(1)

    async def work() -> None:
        await predict(0)
        await asyncio.gather(ask("a"), ask("b"))

    asyncio.run(work())

    assert sorted(one.request_id for one in tap.exchanges) == [b"", b"a", b"b"]


def test_an_error_is_raised_untouched_and_recorded_without_its_text(tap: Kept) -> None:
    error = ValueError("secret row 17")

    @captured(sink=tap)
    def predict(x: int) -> int:
        raise error

    with pytest.raises(ValueError, match="secret") as caught:
        predict(1)

    assert caught.value is error
    exchange = tap.one()
    assert exchange.status == 500
    assert exchange.response_body == b'{"error":"ValueError"}'
    assert b"secret" not in exchange.response_body + exchange.response_head


def test_coroutines_are_recorded_when_they_end(tap: Kept) -> None:
    @captured(sink=tap)
    async def predict(x: int) -> int:
        await asyncio.sleep(0)
        if not x:
            raise KeyError(x)
        return x + 1

    assert inspect.iscoroutinefunction(predict)
    work = predict(1)
    assert tap.exchanges == []
    assert asyncio.run(work) == 2
    with pytest.raises(KeyError):
        asyncio.run(predict(0))

    assert [one.status for one in tap.exchanges] == [200, 500]


def test_a_cancelled_coroutine_is_recorded_as_499(tap: Kept) -> None:
    @captured(sink=tap)
    async def predict(x: int) -> None:
        await asyncio.Event().wait()

    async def work() -> None:
        task = asyncio.create_task(predict(1))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(work())

    assert (tap.one().status, tap.one().aborted_by) == (499, "client")


def test_calls_within_calls_are_recorded_each(tap: Kept) -> None:
    @captured(sink=tap)
    def inner(x: int) -> int:
        return x + 1

    @captured(sink=tap)
    def outer(x: int) -> int:
        return inner(x) * 2

    assert outer(1) == 4
    assert [one.target for one in tap.exchanges] == [
        b"/v2/models/inner/infer",
        b"/v2/models/outer/infer",
    ]


# --- generators ---


def test_pieces_of_a_text_are_recorded_as_one(tap: Kept) -> None:
    @captured(sink=tap)
    def generate(prompt: str) -> Iterator[str]:
        yield from (prompt, " and", " more")

    assert inspect.isgeneratorfunction(generate)
    pieces = generate("this")
    assert next(pieces) == "this"
    assert tap.exchanges == []
    assert list(pieces) == [" and", " more"]

    assert tap.bodies() == ({"prompt": ["this"]}, {"y": ["this and more"]})


def test_as_many_texts_as_rows_stay_apart(tap: Kept) -> None:
    @captured(sink=tap)
    def label(x: list[int]) -> Iterator[str]:
        yield from map(str, x)

    list(label([1, 2]))

    assert tap.bodies()[1] == {"y": ["1", "2"]}


def test_arrays_that_a_generator_fills_again_are_recorded_as_they_were(tap: Kept) -> None:
    @captured(sink=tap)
    def steps(n: int) -> Iterator[Any]:
        buffer = np.zeros(2)
        for number in range(n):
            buffer[:] = number
            yield buffer

    assert sum(one[0] for one in steps(3)) == 3
    assert tap.bodies()[1] == {"y": [0, 0, 1, 1, 2, 2]}


def test_what_is_sent_and_thrown_into_a_generator_arrives_there(tap: Kept) -> None:
    log: list[Any] = []

    def talk(x: int) -> Generator[int, str, str]:
        for number in range(3):
            try:
                log.append((yield number))
            except KeyError as error:
                log.append(error)
        return "end"

    for function in (talk, captured(sink=tap)(talk)):
        talking = function(1)
        assert next(talking) == 0
        assert talking.send("hello") == 1
        assert talking.throw(KeyError("k")) == 2
        with pytest.raises(StopIteration) as stop:
            next(talking)
        assert stop.value.value == "end"

    assert [str(one) for one in log[:3]] == [str(one) for one in log[3:]]
    assert tap.one().status == 200


def test_an_error_within_a_generator_is_raised_untouched(tap: Kept) -> None:
    error = ValueError("x")

    @captured(sink=tap)
    def generate(x: int) -> Iterator[int]:
        yield 1
        raise error

    with pytest.raises(ValueError, match="x") as caught:
        list(generate(1))

    assert caught.value is error
    assert tap.one().status == 500


def test_a_generator_that_nobody_reads_to_its_end_is_closed_and_recorded(tap: Kept) -> None:
    log: list[str] = []

    @captured(sink=tap)
    def generate(x: int) -> Iterator[int]:
        try:
            yield from range(10)
        finally:
            log.append("closed")

    pieces = generate(1)
    assert next(pieces) == 0
    pieces.close()  # type: ignore[attr-defined] # it is a generator

    assert log == ["closed"]
    assert (tap.one().status, tap.one().aborted_by) == (200, "client")
    assert tap.bodies()[1] == {"y": [0]}


def test_an_error_at_the_close_of_a_generator_comes_from_its_close(tap: Kept) -> None:
    def generate(x: int) -> Iterator[int]:
        try:
            yield x
        finally:
            raise KeyError("at the end")

    async def generate_later(x: int) -> AsyncIterator[int]:
        try:
            yield x
        finally:
            raise KeyError("at the end")

    async def close_later() -> None:
        pieces = captured(sink=tap)(generate_later)(1)
        await anext(pieces)
        with pytest.raises(KeyError, match="at the end"):
            await pieces.aclose()  # type: ignore[attr-defined] # it is a generator

    pieces = captured(sink=tap)(generate)(1)
    next(pieces)
    with pytest.raises(KeyError, match="at the end"):
        pieces.close()  # type: ignore[attr-defined] # it is a generator
    asyncio.run(close_later())

    assert [one.status for one in tap.exchanges] == [500, 500]


def test_asynchronous_generators_are_recorded(tap: Kept) -> None:
    @captured(sink=tap)
    async def generate(x: int) -> AsyncIterator[str]:
        for piece in ("a", "b"):
            await asyncio.sleep(0)
            yield piece
        if not x:
            raise KeyError

    async def work() -> None:
        assert [one async for one in generate(1)] == ["a", "b"]
        with pytest.raises(KeyError):
            assert [one async for one in generate(0)] == []
        leaving = generate(1)
        assert await anext(leaving) == "a"
        await leaving.aclose()  # type: ignore[attr-defined] # it is a generator
        thrown = generate(1)
        assert await anext(thrown) == "a"
        with pytest.raises(RuntimeError, match="into"):
            await thrown.athrow(RuntimeError("into"))  # type: ignore[attr-defined] # it is a generator

    assert inspect.isasyncgenfunction(generate)
    asyncio.run(work())

    assert [(one.status, one.aborted_by) for one in tap.exchanges] == [
        (200, ""),
        (500, ""),
        (200, "client"),
        (500, ""),
    ]


def test_a_stream_beyond_the_bound_is_left_out(tap: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidelight.logger._decorator._CAPTURE_LIMIT", 100)

    @captured(sink=tap)
    def generate(x: int) -> Iterator[str]:
        for _ in range(20):
            yield "0123456789"

    assert len(list(generate(1))) == 20
    assert tap.one().response_body == b""
    assert tap.left_out == {"result_too_large": 1}


# --- what cannot be written ---


def test_documents_are_recorded_as_they_are(tap: Kept) -> None:
    @captured(sink=tap)
    def chat(request: dict[str, Any]) -> dict[str, Any]:
        return {"choices": [{"message": {"content": "hi"}}]}

    chat({"messages": [{"role": "user"}], "n": {"a": 1}})

    assert json.loads(tap.one().request_body) == {"messages": [{"role": "user"}], "n": {"a": 1}}
    assert json.loads(tap.one().response_body) == {"choices": [{"message": {"content": "hi"}}]}
    assert tap.left_out == {}


def test_a_document_beside_a_table_is_text_of_each_row(tap: Kept) -> None:
    @captured(sink=tap)
    def predict(x: list[float], options: dict[str, Any]) -> None: ...

    predict([1.0, 2.0], {"deep": {"er": 1}})

    assert tap.bodies()[0] == {"x": [1, 2], "options": ['{"deep":{"er":1}}'] * 2}


def test_what_cannot_be_written_is_left_out_and_counted_and_told_once(
    tap: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    @captured(sink=tap)
    def predict(x: int, session: object) -> object:
        return session

    secret = object()
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            assert predict(number, secret) is secret

    assert tap.left_out == {"argument_unsupported": 3, "result_unsupported": 3}
    assert len(caplog.records) == 2
    assert caplog.records[0].__dict__["type"] == "object"
    exchange = tap.exchanges[0]
    assert [one["name"] for one in json.loads(exchange.request_body)["inputs"]] == ["x"]
    assert exchange.response_body == b""
    assert exchange.response_head == b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("\ud800", id="no-unicode"),
        pytest.param([2**70], id="long-number"),
        pytest.param(iter([1]), id="iterator"),
    ],
)
def test_nothing_that_is_given_makes_a_call_fail(tap: Kept, value: Any) -> None:
    @captured(sink=tap)
    def predict(x: Any) -> Any:
        return x

    assert predict(value) is value
    assert tap.one().request_body == b""
    assert sum(tap.left_out.values()) == 2


def test_values_that_refuse_to_be_read_are_left_out(
    tap: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "sidelight")

    class Hostile:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise TypeError("cannot convert 'secret'")

    @captured(sink=tap)
    def predict(x: Any) -> Any:
        return x

    predict(Hostile())

    assert tap.left_out == {"argument_unreadable": 1, "result_unreadable": 1}
    assert "cannot be read" in caplog.text
    assert "secret" not in caplog.text


def test_a_wrong_call_raises_what_it_raises_without(tap: Kept) -> None:
    @captured(sink=tap)
    def predict(x: int) -> int:
        return x

    with pytest.raises(TypeError, match="missing 1 required"):
        predict()  # type: ignore[call-arg] # the wrong call is the point

    assert tap.one().status == 500


def test_a_tap_that_fails_changes_nothing(tap: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(exchange: Exchange) -> None:
        raise LookupError

    monkeypatch.setattr(tap, "offer", fail)

    assert captured(sink=tap)(abs)(-1) == 1
    assert tap.tap_errors == 1


def test_long_bodies_are_cut_with_their_digest(tap: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidelight.logger._decorator._CAPTURE_LIMIT", 50)

    @captured(sink=tap)
    def predict(x: list[float]) -> int:
        return 1

    predict([0.123456789] * 20)

    exchange = tap.one()
    assert len(exchange.request_body) == 50
    assert exchange.request_cut > 0
    assert len(exchange.request_digest) == 32


def test_what_the_selection_leaves_out_is_not_even_read() -> None:
    tap = Kept(Selection(skip_paths=("*/predict/*",)))

    class Unread:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise AssertionError("read")

    @captured(sink=tap)
    def predict(x: Any) -> int:
        return 1

    assert predict(Unread()) == 1
    assert tap.exchanges == []
    assert tap.left_out == {}


@pytest.mark.parametrize("options", [{"arguments": ["z"]}, {"request_id": "z"}])
def test_names_that_the_function_does_not_have_are_refused(
    tap: Kept, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="'z'"):
        captured(sink=tap, **options)(lambda x: x)


def test_what_cannot_be_called_is_refused(tap: Kept) -> None:
    wrap: Callable[[Any], Any] = captured(sink=tap)

    with pytest.raises(TypeError, match="expected a function"):
        wrap(property(str))


def test_calls_from_many_threads_are_recorded_each(tap: Kept) -> None:
    predict = captured(sink=tap)(abs)
    threads = [threading.Thread(target=lambda: [predict(1) for _ in range(100)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(tap.exchanges) == 400
