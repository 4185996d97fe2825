"""``sidelight proxy`` with three sinks at once: a collector, a topic and a bucket, each cut off."""

import itertools
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import httpx
import orjson
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Consumer

if TYPE_CHECKING:
    from tests.services.conftest import Proxy, Service
    from tests.services.kafka_server import KafkaServer
    from tests.services.s3_server import S3Server

_KEYS = {"S3_KEY": "AKSIDELIGHTTESTS", "S3_SECRET": "not-a-secret-but-like-one"}
_N_REQUESTS = 600
_PATIENCE_S = 240.0


@pytest.fixture
def model() -> Iterator[str]:
    """A model server that doubles."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_POST(self) -> None:
            body = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
            answer = orjson.dumps({"predictions": [2 * x for x in body["instances"]]})
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_every_sink_gets_every_event_although_two_of_them_were_dead_meanwhile(
    start_proxy: Callable[..., "Proxy"],
    service: "Service",
    model: str,
    kafka: "KafkaServer",
    s3: "S3Server",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in _KEYS.items():
        monkeypatch.setenv(name, value)
    topic = kafka.create_topic("proxied", n_partitions=2)
    sinks = [
        {"name": "collector", "http": {"url": f"{service.url}/"}},
        {"name": "topic", "kafka": {"brokers": kafka.servers, "topic": topic, "timeout": "1s"}},
        {
            "name": "bucket",
            "files": {
                "url": "s3://sidelight/proxied",
                "s3": {
                    "endpoint": s3.endpoint,
                    "region": "us-east-1",
                    "access_key_from": "env:S3_KEY",
                    "secret_key_from": "env:S3_SECRET",
                },
            },
            "batch": {"linger": "500ms"},
        },
    ]
    config = tmp_path / "proxy.yaml"
    config.write_bytes(orjson.dumps({"proxy": {"sinks": sinks, "grace": "2m"}}))
    proxy = start_proxy(upstream=model, config=config)
    numbers = itertools.count()

    def ask(n_requests: int) -> None:
        with httpx.Client(timeout=_PATIENCE_S) as client:
            for number in itertools.islice(numbers, n_requests):
                answer = client.post(
                    f"{proxy.url}/v1/models/doubles:predict",
                    json={"instances": [number]},
                    headers={"x-request-id": f"r{number}"},
                )
                assert answer.json() == {"predictions": [2 * number]}

    ask(_N_REQUESTS // 3)
    kafka.kill()
    s3.kill()
    ask(_N_REQUESTS // 3)
    # The collector does not wait for the others.
    service.wait_stored(_N_REQUESTS * 2 // 3)
    kafka.start()
    s3.start()
    ask(_N_REQUESTS - 2 * (_N_REQUESTS // 3))

    inferences = service.wait_stored(_N_REQUESTS)
    expected = {(f"r{number}", side) for number in range(_N_REQUESTS) for side in _SIDES}
    assert {inference["request_id"] for inference in inferences} == {key for key, _ in expected}
    assert set(consumed(kafka.servers, topic, len(expected))) == expected
    # What is still in the spool would stay there.
    proxy.wait_for_metrics(
        lambda metrics: (
            metrics.total("capture_events_total", outcome="sent", sink="bucket") >= len(expected)
        )
    )
    assert proxy.stop() == 0
    table = pq.read_table("sidelight/proxied", filesystem=s3.files())
    rows = list(zip(table["id"].to_pylist(), map(side_of, table["type"].to_pylist()), strict=True))
    assert len(rows) == len(expected)
    assert set(rows) == expected
    assert table["status"].to_pylist().count(200) == _N_REQUESTS
    assert not [secret for secret in _KEYS.values() if secret in proxy.log.read_text()]


_SIDES = ("request", "response")


def side_of(event_type: str) -> str:
    return event_type.rpartition(".")[2]


def consumed(servers: str, topic: str, n_distinct: int) -> set[tuple[str, str]]:
    """Return ids and sides in a topic once there are so many different ones."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "proxied",
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    consumer.subscribe([topic])
    found: set[tuple[str, str]] = set()
    deadline = time.monotonic() + _PATIENCE_S
    while len(found) < n_distinct and time.monotonic() < deadline:
        for message in consumer.consume(1000, timeout=0.2):
            if message.error() is None:
                headers: dict[str, Any] = dict(message.headers() or [])
                found.add((headers["ce_id"].decode(), side_of(headers["ce_type"].decode())))
    consumer.close()
    return found
