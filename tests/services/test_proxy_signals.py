"""The ends of the proxy: while it starts, with a sink that is away, a model that never answers."""

import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

_STOPPED = re.compile(r"stopped sink='(\w+)' seen=(\d+) .*in_spool=(\d+)")
_SPOOLED = re.compile(r"in_spool=(\d+)")
# Limits that a slow machine does not reach, nor one that stands still for seconds.
_ANSWER_S = 120.0
_PATIENCE_S = 180.0
_MOST_ATTEMPTS = 20


@pytest.fixture
def silent() -> Iterator[str]:
    """A model that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def _wait_until_handled(proxy: Any, number: signal.Signals) -> None:
    """Return as soon as the process has its own answer to a signal; it is still starting."""
    status = Path(f"/proc/{proxy.pid}/status")
    deadline = time.monotonic() + _PATIENCE_S
    # No pause: it is to be met in the middle of its start.
    while time.monotonic() < deadline:
        caught = re.search(r"SigCgt:\s*([0-9a-f]+)", status.read_text())
        assert caught is not None
        if int(caught[1], 16) >> (number - 1) & 1:
            return
    pytest.fail(f"{number.name} is never handled")


def _spawn(proxy: Any, receiver: Any, *more: str) -> None:
    proxy.spawn(
        *("proxy", "--upstream", receiver.url, "--sink", f"{receiver.url}/"),
        *("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--spool", str(proxy.spool), *more),
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda it: it.name)
def test_a_stop_in_the_middle_of_the_start_ends_it_cleanly(
    make_proxy: Callable[[], Any], receiver: Any, number: signal.Signals
) -> None:
    proxy = make_proxy()
    _spawn(proxy, receiver)
    # The handler of SIGHUP comes last of the three.
    _wait_until_handled(proxy, signal.SIGHUP)

    proxy.send_signal(signal.SIGHUP)
    proxy.send_signal(number)

    assert proxy.wait() == 0


def test_a_reload_asked_for_in_the_middle_of_the_start_is_done_afterwards(
    make_proxy: Callable[[], Any], receiver: Any
) -> None:
    proxy = make_proxy()
    _spawn(proxy, receiver)
    _wait_until_handled(proxy, signal.SIGHUP)

    proxy.hang_up()

    assert proxy.wait_for_log(re.compile(rb"configuration read again outcome='applied'"))
    assert proxy.stop() == 0


def test_everything_that_was_captured_is_sent_before_the_end(
    start_proxy: Any, receiver: Any
) -> None:
    proxy = start_proxy(upstream=receiver.url, sink=f"{receiver.url}/")
    with httpx.Client(timeout=_ANSWER_S) as client:
        for _ in range(50):
            client.post(f"{proxy.url}/v1/models/m:predict", json={"instances": [[1]]})

        status = proxy.stop()

    assert status == 0
    assert len(receiver.events) == 100


def test_a_stop_in_the_middle_of_a_reload_loses_nothing(
    start_proxy: Any, receiver: Any, silent: str, tmp_path: Path
) -> None:
    for _ in range(_MOST_ATTEMPTS):
        receiver.events.clear()
        proxy, n_asked = _being_reloaded(start_proxy, receiver, silent, tmp_path / "sidelight.yaml")
        is_in_the_middle = not proxy.metrics().total("capture_reloads_total")
        status = proxy.stop()
        told = {
            name: (int(seen), int(rest))
            for name, seen, rest in _STOPPED.findall(proxy.log.read_text())
        }

        assert status == 0
        assert told["removed"][0] + told["brought"][0] == 2 * n_asked
        assert told["removed"][0] == told["removed"][1] > 0
        assert told["brought"] == (len(receiver.events), 0)
        # On a machine that stood still for seconds the reload is over before the stop.
        if is_in_the_middle:
            return
    pytest.fail("each reload was over before the stop")


def _being_reloaded(start_proxy: Any, receiver: Any, silent: str, path: Path) -> tuple[Any, int]:
    """Return a proxy whose sink is being replaced, and how often it was asked."""
    section = {"upstream": receiver.url, "grace": "2m"}
    removed = {"name": "removed", "http": {"url": f"{silent}/"}}
    brought = {"name": "brought", "http": {"url": f"{receiver.url}/"}}
    path.write_bytes(orjson.dumps({"proxy": {**section, "sinks": [removed]}}))
    proxy = start_proxy(config=path)
    _ask(proxy, 10)
    n_asked = 10
    # The flush of the removed one takes its time: its receiver never answers.
    path.write_bytes(orjson.dumps({"proxy": {**section, "sinks": [brought]}}))
    proxy.hang_up()
    while not proxy.metrics().total("capture_events_total", sink="brought", outcome="seen"):
        _ask(proxy, 1)
        n_asked += 1
    return proxy, n_asked


def _ask(proxy: Any, n_requests: int) -> None:
    with httpx.Client(timeout=_ANSWER_S) as client:
        for _ in range(n_requests):
            client.post(f"{proxy.url}/v1/models/m:predict", json={"instances": [[1]]})


def test_what_is_in_work_is_answered_and_captured_before_the_end(
    start_proxy: Any, receiver: Any
) -> None:
    proxy = start_proxy(upstream=receiver.url, sink=f"{receiver.url}/")
    receiver.may_answer.clear()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(
            httpx.post,
            f"{proxy.url}/v1/models/m:predict",
            json={"instances": [[1]]},
            timeout=_ANSWER_S,
        )
        assert receiver.asked.wait(_PATIENCE_S)

        proxy.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            proxy.wait(1.0)
        receiver.may_answer.set()
        status = answer.result().status_code

    assert proxy.wait() == 0
    assert status == 200
    assert [event.get("statuscode") for event in receiver.events] == [None, "200"]


def test_what_cannot_be_sent_is_in_the_spool_at_the_end_and_sent_by_the_next_one(
    start_proxy: Any, receiver: Any
) -> None:
    proxy = start_proxy(upstream=receiver.url, sink="http://127.0.0.1:1/")
    with httpx.Client(timeout=_ANSWER_S) as client:
        for _ in range(20):
            client.post(f"{proxy.url}/v1/models/m:predict", json={"instances": [[1]]})
    first = proxy.stop()
    told = _SPOOLED.search(proxy.log.read_text())

    proxy.start(upstream=receiver.url, sink=f"{receiver.url}/")
    proxy.wait_for_metrics(lambda metrics: not metrics.total("capture_pending_events"))
    second = proxy.stop()

    assert (first, second) == (0, 0)
    assert told is not None
    assert int(told[1]) == 40
    assert len({(event["id"], event["type"]) for event in receiver.events}) == 40


@pytest.mark.parametrize(
    ("numbers", "grace"),
    [
        pytest.param([signal.SIGTERM, signal.SIGTERM], "10s", id="twice"),
        pytest.param([signal.SIGTERM, signal.SIGHUP], "10s", id="reload-while-stopping"),
        # It must end long before its grace.
        pytest.param([signal.SIGINT, signal.SIGINT], "10m", id="a-person-in-a-hurry"),
    ],
)
def test_a_model_that_never_answers_does_not_hold_up_the_end(
    start_proxy: Any,
    receiver: Any,
    silent: str,
    tmp_path: Path,
    numbers: list[signal.Signals],
    grace: str,
) -> None:
    path = tmp_path / "sidelight.yaml"
    path.write_text(f"proxy: {{grace: {grace}}}")
    proxy = start_proxy(config=path, upstream=silent, sink=f"{receiver.url}/")
    port = httpx.URL(proxy.url).port
    assert port is not None
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(
            b"POST /v1/models/m:predict HTTP/1.1\r\nHost: m\r\ncontent-length: 2\r\n\r\n{}"
        )
        proxy.wait_for_requests(1)

        proxy.send_signal(numbers[0])
        proxy.wait_until_stopping()
        proxy.send_signal(numbers[1])
        status = proxy.wait()
        client.settimeout(_ANSWER_S)
        answer = client.recv(65536)

    assert status == 0
    assert answer == b""
    # What a machine that stood still did not send within the grace, the next one does.
    proxy.start(upstream=silent, sink=f"{receiver.url}/")
    proxy.wait_for_metrics(lambda metrics: not metrics.total("capture_pending_events"))
    once = {(event["id"], event["type"]): event for event in receiver.events}
    assert [event.get("statuscode") for event in once.values()] == [None, "499"]
