"""The Kafka sink over librdkafka's own in-process cluster, and over a scripted producer.

The real broker, killed and restarted, is in ``tests/services``.
"""

import asyncio
import itertools
import logging
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import confluent_kafka
import pytest
from tests.adapters.captured_events import captured

from sidelight.adapters import KAFKA_LIMITS, KafkaSink, MissingExtraError, SinkError
from sidelight.adapters import _sink_kafka as module
from sidelight.adapters._sink_kafka_errors import reason_of
from sidelight.logger import CapturedEvent, Delivery

CLUSTER = {"test.mock.num.brokers": 1}
NOBODY = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let connections close however long the machine takes for it."""
    monkeypatch.setattr(module, "_CLOSE_S", 100.0)


def several(n_events: int) -> list[CapturedEvent]:
    return [captured(id=str(number)) for number in range(n_events)]


def used(sink: KafkaSink, use: Callable[[KafkaSink], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        try:
            return await use(sink)
        finally:
            await sink.close()

    return asyncio.run(run())


def sent(sink: KafkaSink, *batches: Sequence[CapturedEvent]) -> list[Delivery]:
    async def use(sink: KafkaSink) -> list[Delivery]:
        return [await sink.send(batch) for batch in batches]

    found: list[Delivery] = used(sink, use)
    return found


class Script:
    """A producer that answers as it is told, by the id of the event.

    An id that is not in ``errors`` is taken; None in it leaves the record without an answer.
    """

    def __init__(self, errors: Mapping[str, int | None]) -> None:
        self.errors = dict(errors)
        self.taken: list[str] = []
        self.n_full = 0
        self.is_fatal = False
        self._waiting: list[tuple[str, Callable[[Any, Any], None]]] = []

    def produce(
        self,
        topic: str,
        *,
        value: bytes,
        key: bytes,
        headers: list[tuple[str, str]],
        on_delivery: Callable[[Any, Any], None],
    ) -> None:
        del topic, value, key
        if self.n_full:
            self.n_full -= 1
            raise BufferError("queue full")
        self._waiting.append((dict(headers)["ce_id"], on_delivery))

    def poll(self, _: float) -> int:
        return 0

    def flush(self, seconds: float) -> int:
        del seconds
        left = []
        for event_id, on_delivery in self._waiting:
            code = self.errors.get(event_id, 0)
            if code is None:
                left.append((event_id, on_delivery))
            elif code:
                on_delivery(confluent_kafka.KafkaError(code, "told so", self.is_fatal), None)
            else:
                self.taken.append(event_id)
                on_delivery(None, None)
        self._waiting = left
        return len(left)

    def purge(self, *, blocking: bool) -> None:
        assert not blocking
        for _, on_delivery in self._waiting:
            on_delivery(confluent_kafka.KafkaError(confluent_kafka.KafkaError._PURGE_QUEUE), None)
        self._waiting = []

    def __len__(self) -> int:
        return len(self._waiting)


def scripted(
    monkeypatch: pytest.MonkeyPatch, *scripts: Script, timeout_s: float = 0.05
) -> KafkaSink:
    """Return a sink whose producers are these, one after another."""
    producers = iter(scripts)
    monkeypatch.setattr(module, "connect", lambda *_: next(producers))
    return KafkaSink(NOBODY, topic="events", timeout_s=timeout_s)


def test_a_cluster_takes_everything() -> None:
    sink = KafkaSink(NOBODY, topic="events", settings=CLUSTER, timeout_s=100)

    assert sent(sink, several(300), several(1), []) == [
        Delivery(n_taken=300),
        Delivery(n_taken=1),
        Delivery(n_taken=0),
    ]


def test_a_record_that_is_too_large_is_known_and_what_was_before_it_is_taken() -> None:
    settings = {**CLUSTER, "message.max.bytes": 2000}
    sink = KafkaSink(NOBODY, topic="events", settings=settings, timeout_s=100)
    large = captured(b"x" * 3000, id="large")

    assert sent(sink, [*several(2), large, *several(2)], [large]) == [
        Delivery(n_taken=2, n_refused=1, failure="too_large"),
        Delivery(n_taken=0, n_refused=1, failure="too_large"),
    ]


def test_nobody_at_the_address_is_told_after_the_timeout(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sink = KafkaSink(NOBODY, topic="events", timeout_s=0.5)
    seconds = itertools.count()

    def monotonic() -> float:
        # No time passes until the library has said what is wrong, however long it takes.
        return next(seconds) if sink._trouble else 0

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=monotonic))

    with caplog.at_level(logging.WARNING):
        found = sent(sink, several(3), several(3))

    assert found == [Delivery(n_taken=0, failure="refused")] * 2
    assert [record.message for record in caplog.records] == ["kafka is in trouble"]


def test_a_cancelled_delivery_is_taken_back_and_the_sink_stays_usable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = Script({"0": None})
    sink = scripted(monkeypatch, script, timeout_s=60)
    asked = threading.Event()
    flush = script.flush

    def noted(seconds: float) -> int:
        asked.set()
        return flush(seconds)

    script.flush = noted  # type: ignore[method-assign] # to know when it waits

    async def use(sink: KafkaSink) -> Delivery:
        task = asyncio.create_task(sink.send(several(1)))
        await asyncio.to_thread(asked.wait, 100)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await sink.send([captured(id="1")])

    assert used(sink, use) == Delivery(n_taken=1)
    assert script.taken == ["1"]


def test_a_delivery_that_is_cancelled_before_its_turn_produces_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = Script({})
    sink = scripted(monkeypatch, script, timeout_s=60)
    free = threading.Event()

    async def use(sink: KafkaSink) -> Delivery:
        holding = asyncio.create_task(sink._worker.run(lambda: free.wait(100)))
        waiting = asyncio.create_task(sink.send(several(2)))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        free.set()
        await holding
        return await sink.send([captured(id="2")])

    assert used(sink, use) == Delivery(n_taken=1)
    assert script.taken == ["2"]


def test_a_connection_that_does_not_close_is_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_CLOSE_S", 0.01)
    sink = scripted(monkeypatch, Script({}))
    free = threading.Event()
    sink._disconnect = lambda: free.wait(100)  # type: ignore[assignment, method-assign] # as a name server

    asyncio.run(sink.close())
    free.set()

    assert [record.message for record in caplog.records] == [
        "the connection to kafka did not close in time"
    ]


def test_only_what_is_taken_from_the_front_on_counts_and_nothing_is_produced_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = Script({"1": None})
    sink = scripted(monkeypatch, script)
    events = several(4)

    async def use(sink: KafkaSink) -> list[Delivery]:
        first = await sink.send(events)
        again = await sink.send(events[1:])
        script.errors = {}
        return [first, again, await sink.send(events[1:]), await sink.send(events)]

    assert used(sink, use) == [
        Delivery(n_taken=1, failure="timeout"),
        Delivery(n_taken=0, failure="timeout"),
        Delivery(n_taken=3),
        Delivery(n_taken=4),
    ]
    assert script.taken == ["0", "2", "3", "1", "0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        pytest.param({"1": 10}, (1, 1), id="one too large"),
        pytest.param({"1": 10, "3": 10}, (1, 3), id="a batch of one partition among others"),
        pytest.param({"0": 10, "1": 10, "2": 10, "3": 10}, (0, 4), id="all in one batch"),
        pytest.param({"1": 7, "3": 10}, (1, 0), id="something else comes first"),
    ],
)
def test_refused_records_are_told_so_that_the_bad_one_is_found(
    monkeypatch: pytest.MonkeyPatch, errors: dict[str, int | None], expected: tuple[int, int]
) -> None:
    (found,) = sent(scripted(monkeypatch, Script(errors)), several(4))

    assert (found.n_taken, found.n_refused) == expected


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        (confluent_kafka.KafkaError._UNKNOWN_TOPIC, "unknown_topic"),
        (confluent_kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED, "denied"),
        (confluent_kafka.KafkaError.NOT_ENOUGH_REPLICAS, "not_enough_replicas"),
        (confluent_kafka.KafkaError._MSG_TIMED_OUT, "timeout"),
        (confluent_kafka.KafkaError._SSL, "tls"),
    ],
)
def test_a_failure_that_passes_refuses_nothing(
    monkeypatch: pytest.MonkeyPatch, code: int, failure: str
) -> None:
    sink = scripted(monkeypatch, Script({"0": code}), Script({}))

    assert sent(sink, several(1)) == [Delivery(n_taken=0, failure=failure)]


@pytest.mark.parametrize("code", [confluent_kafka.KafkaError._UNKNOWN_TOPIC, 89])
def test_a_producer_of_no_further_use_is_replaced(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    first, second = Script({"0": code}), Script({})
    first.is_fatal = code > 0

    assert [d.n_taken for d in sent(scripted(monkeypatch, first, second), *[several(1)] * 2)] == [
        0,
        1,
    ]
    assert second.taken == ["0"]


def test_an_event_that_is_no_event_is_refused_alone() -> None:
    sink = KafkaSink(NOBODY, topic="events", settings=CLUSTER, timeout_s=100)
    bad = [CapturedEvent(b'{"id":1', b"[]"), CapturedEvent(b"[", b"[]"), CapturedEvent(b"1", b"")]

    for event in bad:
        found = sent(sink, [*several(2), event, *several(2)])
        assert found == [Delivery(n_taken=2, n_refused=1, failure="unencodable")]


def test_a_producer_that_cannot_be_made_again_is_a_failure_that_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise SinkError("the file of the authorities is gone")

    sink = scripted(monkeypatch, Script({"0": confluent_kafka.KafkaError._UNKNOWN_TOPIC}))
    sink._connect = refuse  # type: ignore[assignment] # as connect does

    found = sent(sink, several(1), several(1))

    assert [delivery.failure for delivery in found] == ["unknown_topic", "unusable"]


def test_a_full_queue_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script({})
    script.n_full = 3

    assert sent(scripted(monkeypatch, script, timeout_s=60), several(2)) == [Delivery(n_taken=2)]
    assert script.taken == ["0", "1"]


def test_a_queue_that_stays_full_ends_with_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script({})
    script.n_full = sys.maxsize

    assert sent(scripted(monkeypatch, script), several(2)) == [
        Delivery(n_taken=0, failure="timeout")
    ]


def test_no_text_of_an_error_holds_a_secret() -> None:
    settings = {
        "security.protocol": "sasl_plaintext",
        "sasl.password": "hunter2",
        "sasl.mechanisms": "nonsense",
    }

    with pytest.raises(SinkError) as caught:
        KafkaSink(NOBODY, topic="events", settings=settings)

    assert "nonsense" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_an_error_that_quotes_a_secret_is_not_shown() -> None:
    settings = {"sasl.oauthbearer.config": "principal=x hunter2", "security.protocol": "hunter2"}

    with pytest.raises(SinkError, match=r"an error at|expected") as caught:
        KafkaSink(NOBODY, topic="events", settings={**settings, "ssl.key.password": "hunter2"})

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"acks": 1},
        {"enable.idempotence": False},
        {"delivery.timeout.ms": 5},
        {"transactional.id": "x"},
        {"bootstrap.servers": "elsewhere:9092"},
        {"no.such.setting": 1},
        {"message.max.bytes": "many"},
        {"ssl.ca.location": "/no/such/file", "security.protocol": "ssl"},
    ],
)
def test_a_setting_that_cannot_be_used_is_named(settings: dict[str, Any]) -> None:
    with pytest.raises(SinkError, match=next(iter(settings)).replace(".", r"\.")):
        KafkaSink(NOBODY, topic="events", settings=settings)


@pytest.mark.parametrize(
    "arguments",
    [{"topic": ""}, {"mode": "batch"}, {"key": "tenant"}, {"timeout_s": 0}],
)
def test_an_argument_that_cannot_be_used_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="kafka"):
        KafkaSink(NOBODY, **{"topic": "events", **arguments})


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)

    with pytest.raises(MissingExtraError, match=r"pip install 'sidelight\[kafka\]'"):
        KafkaSink(NOBODY, topic="events")


def test_a_refused_connection_is_told_from_a_lost_one() -> None:
    texts = {"Connection refused": "refused", "Disconnected while requesting": "reset"}

    for text, reason in texts.items():
        error = confluent_kafka.KafkaError(confluent_kafka.KafkaError._TRANSPORT, text)
        assert reason_of(error) == reason


def test_the_limits_send_more_at_once_than_the_usual_ones() -> None:
    assert KAFKA_LIMITS.batch_events == 2048
