"""Several sinks behind one proxy: each gets everything, a dead one holds up no other."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pyarrow.dataset
import pytest

_OUTCOMES = ("sent", "sampled_out", "dropped")
_DEAD = "http://127.0.0.1:1/"
_ANSWER_S = 120.0


@pytest.fixture
def configured(start_proxy: Any, tmp_path: Path, receiver: Any) -> Callable[..., Any]:
    """Start a proxy with these sinks; return it and what changes them."""

    def start(*sinks: dict[str, Any]) -> tuple[Any, Callable[..., None]]:
        path = tmp_path / "sidelight.yaml"

        def write(*sinks: dict[str, Any]) -> None:
            section = {"upstream": receiver.url, "sinks": sinks}
            path.write_bytes(orjson.dumps({"proxy": section}))

        write(*sinks)
        proxy = start_proxy(config=path)

        def change(*sinks: dict[str, Any]) -> None:
            write(*sinks)
            n_before = proxy.metrics().total("capture_reloads_total", outcome="applied")
            proxy.hang_up()
            proxy.wait_for_metrics(
                lambda metrics: metrics.total("capture_reloads_total", outcome="applied") > n_before
            )

        return proxy, change

    return start


def _ask(proxy: Any, n_requests: int) -> None:
    with httpx.Client(timeout=_ANSWER_S) as client:
        for number in range(n_requests):
            body = {"instances": [[number]]}
            answer = client.post(f"{proxy.url}/v1/models/m:predict", json=body)
            assert answer.status_code == 200


def _account(proxy: Any, sink: str) -> dict[str, int]:
    metrics = proxy.metrics()
    account = {
        outcome: metrics.total("capture_events_total", sink=sink, outcome=outcome)
        for outcome in ("seen", *_OUTCOMES)
    }
    account["pending"] = metrics.total("capture_pending_events", sink=sink)
    assert account["seen"] == account["pending"] + sum(account[name] for name in _OUTCOMES)
    return account


def _wait_until_sent(proxy: Any, sink: str) -> None:
    proxy.wait_for_metrics(lambda metrics: not metrics.total("capture_pending_events", sink=sink))


def test_each_sink_gets_everything_whatever_becomes_of_the_others(
    configured: Any, receiver: Any, tmp_path: Path
) -> None:
    files = tmp_path / "files"
    proxy, _ = configured(
        {"name": "collector", "http": {"url": f"{receiver.url}/"}},
        {"name": "archive", "files": {"url": str(files)}, "batch": {"linger": "100ms"}},
        {"name": "dead", "http": {"url": _DEAD}},
        {"name": "forgetful", "http": {"url": _DEAD}, "overflow": "drop_newest", "memory": "8KiB"},
    )

    _ask(proxy, 50)
    for sink in ("collector", "archive"):
        _wait_until_sent(proxy, sink)
    accounts = {
        sink: _account(proxy, sink) for sink in ("collector", "archive", "dead", "forgetful")
    }
    status = proxy.stop()
    stored = pyarrow.dataset.dataset(files, format="parquet", partitioning="hive")

    assert status == 0
    assert {account["seen"] for account in accounts.values()} == {100}
    assert accounts["collector"]["sent"] == len(receiver.events) == 100
    assert accounts["archive"]["sent"] == 100
    assert stored.count_rows() == 100
    assert accounts["dead"]["pending"] == 100
    assert accounts["forgetful"]["dropped"] > 0
    assert list((proxy.spool / "dead").glob("*.spool1"))
    assert not (proxy.spool / "forgetful").exists()


def test_what_a_removed_sink_did_not_take_waits_until_it_is_configured_again(
    configured: Any, receiver: Any
) -> None:
    good = {"name": "good", "http": {"url": f"{receiver.url}/"}}
    proxy, change = configured(good, {"name": "late", "http": {"url": _DEAD}})
    _ask(proxy, 20)

    change(good)
    _ask(proxy, 10)
    removed = _account(proxy, "late")
    change(good, {"name": "late", "http": {"url": f"{receiver.url}/"}})
    _ask(proxy, 5)
    for sink in ("good", "late"):
        _wait_until_sent(proxy, sink)

    assert removed == {"seen": 40, "sent": 0, "sampled_out": 0, "dropped": 0, "pending": 40}
    assert _account(proxy, "good")["sent"] == 70
    assert _account(proxy, "late")["sent"] == _account(proxy, "late")["seen"] == 50
    assert len(receiver.events) == 120
    assert proxy.stop() == 0


def test_a_spool_of_the_command_line_is_found_by_the_next_start_with_the_same_options(
    start_proxy: Any, receiver: Any
) -> None:
    proxy = start_proxy(upstream=receiver.url, sink=_DEAD)
    _ask(proxy, 10)
    proxy.stop()
    left = list(proxy.spool.glob("*.spool1"))

    proxy.start(upstream=receiver.url, sink=f"{receiver.url}/")
    _wait_until_sent(proxy, "sink")

    assert left
    assert _account(proxy, "sink")["sent"] == 20
    assert len(receiver.events) == 20


def test_a_spool_that_no_sink_takes_up_is_said_at_the_start(
    start_proxy: Any, receiver: Any, tmp_path: Path
) -> None:
    proxy = start_proxy(upstream=receiver.url, sink=_DEAD)
    _ask(proxy, 1)
    proxy.stop()
    path = tmp_path / "sidelight.yaml"
    sinks = [{"name": "other", "http": {"url": f"{receiver.url}/"}}]
    path.write_bytes(orjson.dumps({"proxy": {"sinks": sinks}}))

    proxy.start(upstream=receiver.url, config=path)

    assert proxy.wait_for_log(re.compile(b"events of a sink that is not configured wait"))
