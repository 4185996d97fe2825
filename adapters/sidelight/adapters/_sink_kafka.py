"""An Apache Kafka topic of CloudEvents."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sidelight.adapters._sink_kafka_errors import reason_of
from sidelight.adapters._sink_kafka_flight import Flight
from sidelight.adapters._sink_kafka_record import KafkaKey, KafkaMode, KafkaRecord, record_of
from sidelight.adapters._sink_kafka_settings import connect
from sidelight.adapters._sink_worker import SinkWorker, WorkCancelled, unhurried
from sidelight.adapters.errors import AdapterError
from sidelight.logger import CapturedEvent, Delivery, EmitterLimits

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer

log = logging.getLogger(__name__)

KAFKA_LIMITS: Final = EmitterLimits(batch_events=2048, batch_bytes=4 << 20, linger_s=0.05)
"""Limits of an emitter for this sink: each delivery waits for its slowest replica once."""

_TURN_S: Final = 0.1
_PURGE_S: Final = 1.0
_CLOSE_S: Final = 3.0


class KafkaSink:
    """Produce captured events to one topic, in order.

    The order of a key is kept, also over failures: what is delivered again was seen before, and
    never in front of what came earlier. Duplicates appear only when the broker did not answer
    within the timeout, or this process was killed.

    Parameters
    ----------
    servers : str
        Where the cluster is asked first: ``host:port``, several with commas.
    topic : str
    mode : "binary" or "structured", default "binary"
        Attributes as headers ``ce_*`` and the payload as the value, or one JSON document.
    key : "deployment" or "request", default "deployment"
        ``namespace/name`` keeps everything of a deployment in one partition and thus in order.
        The request id spreads a deployment that is too busy for one partition; then only the two
        halves of an inference stay together.
    timeout_s : float, default 10.0
        For the acknowledgement of what is sent at once, seconds. An outage that is shorter costs
        no duplicates.
    settings : mapping, optional
        Passed on to librdkafka: ``security.protocol``, ``sasl.*``, ``ssl.*``, ``linger.ms``, ...
        ``message.max.bytes`` should not exceed the topic's ``max.message.bytes``: then a record
        that is too large is known as such before it is sent.

    Raises
    ------
    MissingExtraError
        When ``confluent-kafka`` is not installed.
    SinkError
        When a setting cannot be used.
    ValueError
        When another argument cannot.

    References
    ----------
    CloudEvents Kafka protocol binding 1.0.2, section 3.

    """

    def __init__(
        self,
        servers: str,
        *,
        topic: str,
        mode: KafkaMode = "binary",
        key: KafkaKey = "deployment",
        timeout_s: float = 10.0,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        for name, value in {"servers": servers, "topic": topic}.items():
            if not value:
                raise ValueError(f"kafka {name}: expected a name, got an empty string")
        if mode not in {"binary", "structured"} or key not in {"deployment", "request"}:
            raise ValueError(
                "kafka: expected mode binary or structured and key deployment or request, got "
                f"{mode!r} and {key!r}"
            )
        if not timeout_s > 0:
            raise ValueError(f"kafka timeout_s: expected a positive number, got {timeout_s}")
        self._connect = partial(connect, servers, dict(settings or {}), self._note)
        self._topic = topic
        self._record = partial(record_of, mode=mode, key=key)
        self._timeout_s = timeout_s
        self._worker = SinkWorker("sidelight-kafka")
        # What a partly failed delivery had in the log already is not produced a second time.
        self._known: set[tuple[bytes, bytes]] = set()
        self._trouble = ""
        self._producer: Producer | None = self._connect()
        from confluent_kafka import KafkaException  # noqa: PLC0415 - known to be there by now

        self._error: type[KafkaException] = KafkaException

    async def send(self, events: Sequence[CapturedEvent]) -> Delivery:
        """Deliver events in order; see ``Sink``."""
        cancelled = threading.Event()
        try:
            return await self._worker.run(lambda: self._deliver(events, cancelled))
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def close(self) -> None:
        """Give up connections and what is still on its way, within three seconds."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._worker.run(self._disconnect)
        except TimeoutError:
            log.warning("the connection to kafka did not close in time")
        self._worker.stop()

    def _deliver(self, events: Sequence[CapturedEvent], cancelled: threading.Event) -> Delivery:
        flight = Flight(len(events))
        try:
            # Not "or": a producer without records is empty, thus false.
            producer = self._connect() if self._producer is None else self._producer
        except AdapterError:
            log.exception("the kafka producer cannot be made again")
            return Delivery(n_taken=0, failure="unusable")
        self._producer = producer
        deadline = time.monotonic() + self._timeout_s
        try:
            self._launch(producer, unhurried(events, cancelled), flight, deadline)
            while producer.flush(_TURN_S) and time.monotonic() < deadline:
                if cancelled.is_set() or flight.is_spent:
                    break
        except WorkCancelled:
            log.debug("a delivery was cancelled before it was on its way")
        finally:
            self._take_back(producer, flight)
        delivery = flight.delivery(self._trouble)
        if delivery.n_taken:
            self._trouble = ""
        beyond = (events[index] for index in flight.landed() if index > delivery.n_taken)
        self._known = {(event.attributes, event.data) for event in beyond}
        return delivery

    def _launch(
        self,
        producer: "Producer",
        events: Iterable[CapturedEvent],
        flight: Flight,
        deadline: float,
    ) -> None:
        """Queue records up to the first one that cannot be."""
        for index, event in enumerate(events):
            if self._known and (event.attributes, event.data) in self._known:
                flight.land(index)
                continue
            try:
                record = self._record(event)
                report = partial(flight.report, index)
                if not self._produce(producer, record, report, deadline):
                    return
            except self._error as error:
                flight.fail(index, error.args[0])
                return
            except (AttributeError, TypeError, ValueError) as error:
                # Not its text, which may quote the event.
                kind = type(error).__name__
                log.error("a captured event cannot be encoded", extra={"error": kind})  # noqa: TRY400
                flight.refuse(index, "unencodable")
                return

    def _produce(
        self,
        producer: "Producer",
        record: KafkaRecord,
        report: Callable[["KafkaError | None", Any], None],
        deadline: float,
    ) -> bool:
        while True:
            try:
                producer.produce(
                    self._topic,
                    value=record.value,
                    key=record.key,
                    headers=record.headers,
                    on_delivery=report,
                )
            except BufferError:
                producer.poll(_TURN_S)
                if time.monotonic() > deadline:
                    return False
            else:
                return True

    def _take_back(self, producer: "Producer", flight: Flight) -> None:
        """Leave nothing behind that would be produced later, in front of what is sent next."""
        if len(producer):
            producer.purge(blocking=False)
            producer.flush(_PURGE_S)
        if flight.is_spent:
            self._producer = None

    def _disconnect(self) -> None:
        if self._producer is not None:
            self._producer.purge(blocking=False)
            self._producer.flush(_PURGE_S)
            self._producer = None

    def _note(self, error: "KafkaError") -> None:
        # "All brokers are down" follows the error that says why.
        if error.name() == "_ALL_BROKERS_DOWN" and self._trouble:
            return
        reason = reason_of(error)
        if reason != self._trouble:
            self._trouble = reason
            log.warning("kafka is in trouble", extra={"reason": reason, "error": error.str()})
