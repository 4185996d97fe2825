"""Captured events reach a real Kafka: what it loses by SIGKILL, by silence and by refusal."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka
from cloudevents.core.formats.json import JSONFormat
from confluent_kafka import Consumer, Message

from sidelight.adapters import KAFKA_LIMITS, KafkaMode, KafkaSink
from sidelight.logger import Accounts, Capture, CapturedEvent, Delivery, Emitter, Exchange
from sidelight.logger._outlet import EmitterLimits, SpoolFolder

if TYPE_CHECKING:
    from tests.services.kafka_server import KafkaServer

_DEPLOYMENTS = ("m0", "m1", "m2")
_LIMITS = EmitterLimits(
    batch_events=64, linger_s=0.005, spill_after_s=0.05, max_backoff_s=0.5, batch_bytes=1 << 20
)
_READ_S = 240.0


def exchange(number: int, *, body: bytes | None = None) -> Exchange:
    model = _DEPLOYMENTS[number % len(_DEPLOYMENTS)].encode()
    now = time.time_ns()
    return Exchange(
        method=b"POST",
        target=b"/v2/models/%b/infer" % model,
        request_head=b"POST / HTTP/1.1\r\nContent-Type: application/json\r\n"
        b"X-Request-Id: %d\r\n\r\n" % number,
        request_body=b'{"number":%d}' % number if body is None else body,
        response_head=b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n",
        response_body=b'{"answer":%d}' % number,
        status=200,
        started_ns=now,
        finished_ns=now,
        latency_ms=1.0,
    )


def captured(numbers: Sequence[int]) -> list[CapturedEvent]:
    capture = Capture()
    return [event for number in numbers for event in capture.events(exchange(number))]


def read_all(kafka: "KafkaServer", topic: str, n_distinct: int) -> list[Message]:
    """Return the topic's records once so many different ones are in it, with all that follow."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.servers,
            "group.id": f"test-{topic}",
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    consumer.subscribe([topic])
    found: list[Message] = []
    distinct: set[tuple[str, str]] = set()
    deadline = time.monotonic() + _READ_S
    n_ended = 0
    try:
        while len(distinct) < n_distinct or not n_ended:
            assert time.monotonic() < deadline, f"{len(distinct)} of {n_distinct} in {topic}"
            for message in consumer.consume(1000, timeout=0.2):
                if message.error() is None:
                    found.append(message)
                    distinct.add(half_of(message))
                else:
                    n_ended += 1
    finally:
        consumer.close()
    return found


def headers_of(message: Message) -> dict[str, bytes]:
    headers: Any = message.headers() or []  # bytes, although they are said to be text as well
    return dict(headers)


def half_of(message: Message) -> tuple[str, str]:
    headers = headers_of(message)
    return headers["ce_id"].decode(), headers["ce_type"].decode().rpartition(".")[2]


def halves(numbers: Sequence[int]) -> list[tuple[str, str]]:
    return [(str(number), kind) for number in numbers for kind in ("request", "response")]


def by_deployment(messages: Sequence[Message]) -> dict[str, list[tuple[str, str]]]:
    """Return what was delivered to each deployment, in order, each half where it came first."""
    found: dict[str, dict[tuple[str, str], None]] = {}
    for message in messages:
        key = (message.key() or b"").decode()
        found.setdefault(key, {}).setdefault(half_of(message))
    return {key: list(delivered) for key, delivered in found.items()}


def expected_by_deployment(n_exchanges: int) -> dict[str, list[tuple[str, str]]]:
    n_deployments = len(_DEPLOYMENTS)
    return {
        f"default/{name}": halves(range(number, n_exchanges, n_deployments))
        for number, name in enumerate(_DEPLOYMENTS)
    }


def accounts_of(emitter: Emitter) -> Accounts:
    return emitter.accounts()["sink"]


def failures(emitter: Emitter) -> int:
    return sum(accounts_of(emitter).sink_errors.values())


def has_sent(emitter: Emitter, n_events: float) -> bool:
    return accounts_of(emitter).sent >= n_events


def has_failed(emitter: Emitter, n_before: int) -> bool:
    return failures(emitter) > n_before and accounts_of(emitter).spool_events > 0


async def until(claim: Callable[[], object]) -> None:
    async with asyncio.timeout(_READ_S):
        while not claim():  # noqa: ASYNC110 - counters have no event to wait for
            await asyncio.sleep(0.01)


async def offered(emitter: Emitter, numbers: Sequence[int]) -> None:
    for number in numbers:
        emitter.offer(exchange(number))
        await asyncio.sleep(0.001)


@pytest.fixture
def topic(kafka: "KafkaServer", request: pytest.FixtureRequest) -> Iterator[str]:
    """A topic of four partitions for one test."""
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[:200]
    yield kafka.create_topic(name, n_partitions=4)
    kafka.process.signal(signal.SIGCONT)


def test_nothing_is_lost_and_order_is_kept_when_the_broker_is_killed_under_load(
    kafka: "KafkaServer", topic: str, tmp_path: Path
) -> None:
    n_exchanges, n_kills = 6000, 2

    async def run() -> Emitter:
        sink = KafkaSink(kafka.servers, topic=topic, timeout_s=1)
        emitter = Emitter.of(sink, spool=SpoolFolder(folder=tmp_path / "spool"), limits=_LIMITS)
        await emitter.start()
        load = asyncio.create_task(offered(emitter, range(n_exchanges)))
        for kill in range(1, n_kills + 1):
            await until(partial(has_sent, emitter, (2 * kill - 1) * n_exchanges / n_kills))
            n_failures = failures(emitter)
            kafka.kill()
            # What is on its way is given up, and what comes waits on the disk.
            await until(partial(has_failed, emitter, n_failures))
            await asyncio.to_thread(kafka.start)
        await load
        await until(lambda: not accounts_of(emitter).pending)
        await emitter.flush()
        return emitter

    accounts = accounts_of(uvloop.run(run()))

    messages = read_all(kafka, topic, 2 * n_exchanges)
    assert by_deployment(messages) == expected_by_deployment(n_exchanges)
    assert accounts.sent == accounts.seen == 2 * n_exchanges
    assert sum(accounts.dropped.values()) == 0
    n_duplicates = len(messages) - 2 * n_exchanges
    print(f"{n_duplicates} duplicates, failures {dict(accounts.sink_errors)}")
    # Only what was on its way at a failure, of which a slow broker makes more: a delivery each.
    assert n_duplicates <= sum(accounts.sink_errors.values()) * _LIMITS.batch_events


def test_an_outage_shorter_than_the_timeout_costs_no_duplicate(
    kafka: "KafkaServer", topic: str
) -> None:
    events = captured(range(3000))

    async def run() -> list[Delivery]:
        sink = KafkaSink(kafka.servers, topic=topic, timeout_s=_READ_S)
        first = await sink.send(events[:100])
        sending = asyncio.create_task(sink.send(events[100:]))
        await asyncio.sleep(0)
        kafka.kill()
        await asyncio.to_thread(kafka.start)
        found = [first, await sending]
        await sink.close()
        return found

    assert uvloop.run(run()) == [Delivery(n_taken=100), Delivery(n_taken=5900)]
    assert Counter(map(half_of, read_all(kafka, topic, 6000))) == Counter(halves(range(3000)))


def test_a_broker_that_is_silent_costs_a_timeout_and_the_rest_stays_in_the_spool(
    kafka: "KafkaServer", topic: str, tmp_path: Path
) -> None:
    first, second = tmp_path / "spool", tmp_path / "found"

    async def run(numbers: Sequence[int], folder: Path, *, is_silent: bool) -> tuple[int, int]:
        sink = KafkaSink(kafka.servers, topic=topic, timeout_s=600)
        emitter = Emitter.of(sink, spool=SpoolFolder(folder=folder), limits=_LIMITS)
        await emitter.start()
        if is_silent:
            kafka.process.signal(signal.SIGSTOP)
        await offered(emitter, numbers)
        if is_silent:
            # Before the grace begins, which a machine that stands still does not prolong.
            await until(lambda: accounts_of(emitter).spool_events == 2 * len(numbers))
        else:
            await until(lambda: not accounts_of(emitter).pending)
        # Not the timeout of the sink.
        async with asyncio.timeout(_READ_S):
            await emitter.flush(grace_s=4)
        kafka.process.signal(signal.SIGCONT)
        accounts = accounts_of(emitter)
        assert sum(accounts.dropped.values()) == 0
        return accounts.seen, accounts.sent + accounts.spool_events

    assert uvloop.run(run(range(300), first, is_silent=True)) == (600, 600)
    # As the next process finds it, which need not wait until this one lets go of it.
    shutil.copytree(first, second)
    seen, done = uvloop.run(run(range(300, 303), second, is_silent=False))
    assert seen == done
    assert by_deployment(read_all(kafka, topic, 606)) == expected_by_deployment(303)


def test_a_topic_that_is_made_later_gets_everything(kafka: "KafkaServer") -> None:
    async def run() -> list[Delivery]:
        sink = KafkaSink(kafka.servers, topic="made-later", timeout_s=_READ_S)
        events = captured([1])
        found = [await sink.send(events)]
        kafka.create_topic("made-later")
        found.append(await sink.send(events))
        await sink.close()
        return found

    assert uvloop.run(run()) == [
        Delivery(n_taken=0, failure="unknown_topic"),
        Delivery(n_taken=2),
    ]


def test_records_that_the_broker_refuses_are_counted_and_hold_up_nobody(
    kafka: "KafkaServer",
) -> None:
    # Less than the client's own bound, so that only the broker can say it, of whole batches.
    topic = kafka.create_topic("small-records", max_message_bytes=3000)
    bad = {7, 8, 30}

    async def run() -> Emitter:
        sink = KafkaSink(kafka.servers, topic=topic, timeout_s=_READ_S)
        emitter = Emitter.of(sink, limits=KAFKA_LIMITS)
        await emitter.start()
        for number in range(40):
            body = os.urandom(5000).hex().encode() if number in bad else None
            emitter.offer(exchange(number, body=body))
        await until(lambda: not accounts_of(emitter).pending)
        await emitter.flush()
        return emitter

    accounts = accounts_of(uvloop.run(run()))

    assert accounts.dropped["rejected"] == len(bad)
    assert accounts.sent == 80 - len(bad)
    assert set(accounts.sink_errors) == {"too_large"}
    found = set(map(half_of, read_all(kafka, topic, 80 - len(bad))))
    assert found == set(halves(range(40))) - {(str(number), "request") for number in bad}


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_the_cloudevents_sdk_reads_what_a_consumer_gets(
    kafka: "KafkaServer", topic: str, mode: KafkaMode
) -> None:
    events = captured(range(6))

    async def run() -> Delivery:
        sink = KafkaSink(kafka.servers, topic=topic, mode=mode, timeout_s=_READ_S)
        delivery = await sink.send(events)
        await sink.close()
        return delivery

    assert uvloop.run(run()) == Delivery(n_taken=12)
    found = {}
    for message in raw(kafka, topic, 12):
        told = KafkaMessage(headers_of(message), message.key(), message.value() or b"")
        event = from_kafka(told, JSONFormat())
        attributes = event.get_attributes()
        found[attributes["id"], attributes["type"]] = (
            {name: str(value) for name, value in attributes.items() if name != "time"},
            event.get_data(),
        )
    wanted: dict[tuple[str, str], tuple[dict[str, Any], Any]] = {}
    for captured_event in events:
        content = json.loads(captured_event.member())
        data = content.pop("data")
        content.pop("time")
        content["partitionkey"] = f"default/{content['inferenceservicename']}"
        wanted[content["id"], content["type"]] = content, data
    assert found == wanted


def test_wrong_credentials_are_told_and_stand_in_no_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from tests.services.kafka_server import KafkaServer  # noqa: PLC0415 - with a door of its own

    plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    server = KafkaServer(
        tmp_path,
        {
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,BROKER:SASL_PLAINTEXT",
            "listener.name.broker.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.broker.plain.sasl.jaas.config": (
                f'{plain} username="broker" password="inner" '
                'user_broker="inner" user_alice="wonderland";'
            ),
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
        },
    )
    settings = {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanisms": "PLAIN",
        "sasl.username": "alice",
    }

    async def run(password: str, timeout_s: float) -> Delivery:
        sink = KafkaSink(
            server.servers,
            topic="events",
            timeout_s=timeout_s,
            settings={**settings, "sasl.password": password},
        )
        async with asyncio.timeout(_READ_S):
            delivery = Delivery(n_taken=0, failure="timeout")
            # A refusal may come later than that, too.
            while delivery.failure == "timeout":
                delivery = await sink.send(captured([1]))
        await sink.close()
        return delivery

    with contextlib.closing(server):
        server.start()
        server.create_topic("events", client={**settings, "sasl.password": "wonderland"})
        refused = uvloop.run(run("looking-glass", 3))
        taken = uvloop.run(run("wonderland", _READ_S))

    assert (refused, taken) == (Delivery(n_taken=0, failure="denied"), Delivery(n_taken=2))
    assert "looking-glass" not in caplog.text
    assert {record.message for record in caplog.records} == {"kafka is in trouble"}


def raw(kafka: "KafkaServer", topic: str, n_records: int) -> list[Message]:
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.servers,
            "group.id": "raw",
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    consumer.subscribe([topic])
    found: list[Message] = []
    deadline = time.monotonic() + _READ_S
    while len(found) < n_records and time.monotonic() < deadline:
        found += [m for m in consumer.consume(n_records, timeout=0.5) if m.error() is None]
    consumer.close()
    return found
