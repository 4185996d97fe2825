"""The demo is the main job from end to end; its accounts balance, whatever is killed meanwhile."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sidelight.service._demo_client import Metrics

# Limits that a slow machine does not reach, nor one that stands still for seconds.
_DEMO_S = 900.0
_STOP_S = 120.0
_TRACED_S = 5.0
_POLL_S = 0.02
_STRACE = shutil.which("strace") is not None


class DemoEndedError(Exception):
    """The demo was over before what was waited for: the machine is quicker than its killer."""


class Demo:
    """``sidelight demo`` as a process; what it prints goes to files."""

    def __init__(self, folder: Path) -> None:
        self._output = folder / "output"
        self._errors = folder / "errors"
        self._data = folder / "demo"
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "sidelight.service", "demo"),
                    *("--quick", "--once", "--port", "0", "--data", str(self._data)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
            )

    def finish(self) -> dict[str, Any]:
        """Wait for the end; return what the last line says."""
        assert self._process.wait(_DEMO_S) == 0
        numbers: dict[str, Any] = json.loads(self._output.read_text().splitlines()[-1])
        return numbers

    def wait_inferences(self, number: int) -> None:
        """Return when the service of the demo has stored so many."""

        def stored() -> bool:
            with contextlib.suppress(httpx.HTTPError, ValueError, IndexError):
                words = _command(self.serve())
                port = words[words.index("--port") + 1]
                text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
                return Metrics(text).total("inferences_total") >= number
            return False

        self._wait(stored, f"{number} inferences are stored")

    def serve(self) -> int:
        """Return the process id of the collector's supervisor."""
        return self._find(self._process.pid, "serve")

    def part(self, role: str) -> int:
        """Return the process id of a part of the collector."""
        return self._find(self.serve(), role)

    def _find(self, parent: int, word: str) -> int:
        found: list[int] = []

        def search() -> bool:
            found[:] = [pid for pid in _children(parent) if word in _command(pid)]
            return bool(found)

        self._wait(search, f"{word} runs under {parent}")
        return found[0]

    def _wait(self, true: Any, what: str) -> None:
        deadline = time.monotonic() + _DEMO_S
        while not true():
            if self._process.poll() is not None:
                raise DemoEndedError(what)
            assert time.monotonic() < deadline, f"not in time: {what}"
            time.sleep(_POLL_S)

    def close(self) -> None:
        """Leave nothing behind; show the logs, in case that something failed."""
        if self._process.poll() is None:
            # It stops what it started.
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(_STOP_S)
        for path in (self._output, self._errors, *sorted(self._data.glob("logs/*"))):
            print(f"--- {path} ---\n{path.read_text(errors='replace')[-10_000:]}")


def _children(pid: int) -> list[int]:
    """Return the children of all threads: a restarted process was forked by another thread."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, (task / "children").read_text().split())
    return found


def _command(pid: int) -> list[str]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    return []


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    started = Demo(tmp_path)
    yield started
    started.close()


def test_the_demo_shows_drift_outliers_and_an_explanation(demo: Demo) -> None:
    numbers = demo.finish()

    _assert_nothing_is_lost(numbers)
    assert numbers["duplicates"] == 0
    drifts = [alarm for alarm in numbers["drift_alarms"] if alarm["kind"] == "drift"]
    assert [alarm["features"][0]["name"] for alarm in drifts][:1] == ["temp"]
    assert numbers["outlier_rows"] > 0
    explanation = numbers["explanation"]
    assert sum(explanation["attributions"].values()) == pytest.approx(
        explanation["prediction"] - explanation["base"], abs=1e-6
    )


def test_the_demo_loses_nothing_when_the_collector_is_killed(demo: Demo) -> None:
    with contextlib.suppress(DemoEndedError):
        for n_inferences in (500, 2500):
            demo.wait_inferences(n_inferences)
            _kill(demo.serve())

    _assert_nothing_is_lost(demo.finish())


def test_the_demo_loses_nothing_when_door_and_consumer_are_killed(demo: Demo) -> None:
    with contextlib.suppress(DemoEndedError):
        for n_inferences in (300, 1000, 1600, 2200):
            role = "consumer" if n_inferences == 1000 else "door"
            demo.wait_inferences(n_inferences)
            pid = demo.part(role)
            if role == "door" and _STRACE:
                _kill_before_it_acknowledges(pid)
            else:
                _kill(pid)

    numbers = demo.finish()

    _assert_nothing_is_lost(numbers)
    # Any number: what was not acknowledged may have been labels only.
    print(f"{numbers['redelivered']} events came again")


def _kill(pid: int) -> None:
    # It may be over already, with its demo.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _kill_before_it_acknowledges(door: int) -> None:
    """Kill the door when a request is written and not yet acknowledged: it is sent again."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        # Nothing more may be written: the sender is ahead of what is stored.
        subprocess.run(
            [
                *("strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=fdatasync"),
                *("-e", "inject=fdatasync:signal=SIGKILL:when=2", "-p", str(door)),
            ],
            check=False,
            timeout=_TRACED_S,
        )


def _assert_nothing_is_lost(numbers: dict[str, Any]) -> None:
    assert numbers["lost"] == 0
    assert numbers["orphans"] == numbers["quarantined"] == numbers["dropped"] == 0
    assert numbers["inferences_stored"] > 5000
    assert numbers["events_seen"] == sum(
        (
            2 * numbers["inferences_stored"],
            *(numbers[name] for name in ("orphans", "quarantined", "dropped", "duplicates")),
        )
    )
