"""A clock that jumps by hours in all processes: nothing is lost or stored twice."""

import json
import os
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tests.services.conftest import _SIDELIGHT

if TYPE_CHECKING:
    from tests.services.conftest import Service

_N = 400
# Read by Python before anything else; the wall clock is what changes, not the steady one.
_SHIFTED = """
import mmap
import time
_ns = time.time_ns
with open({path!r}, "rb") as file:
    _shift = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
def time_ns():
    return _ns() + int.from_bytes(_shift[:8], "little", signed=True)
time.time_ns = time_ns
time.time = lambda: time_ns() / 1e9
"""
_HOUR_NS = 3_600_000_000_000
# Hours: right, an hour behind, two ahead, a day behind.
_JUMPS = (0, -1, 2, -24)
_FIRST = datetime(2026, 3, 1, tzinfo=UTC)


def _headers(number: int, side: str) -> dict[str, str]:
    # The clocks of the senders are no better.
    skew = timedelta(days=(number * 7919) % 800 - 400)
    return {
        "ce-specversion": "1.0",
        "ce-type": "org.kubeflow.serving.inference." + side,
        "ce-source": "/test",
        "ce-id": f"r{number}",
        "ce-namespace": "prod",
        "ce-inferenceservicename": "income",
        "ce-time": (_FIRST + skew - timedelta(hours=side == "response")).isoformat(),
        "content-type": "application/json",
    }


def test_what_comes_while_the_clock_jumps_is_stored_once_and_paired(
    start_service: "Callable[..., Service]", tmp_path: Path
) -> None:
    clock = tmp_path / "clock"
    clock.write_bytes(bytes(8))

    def jump(hours: int) -> None:
        # One write of eight bytes into a page that all processes see.
        with clock.open("r+b", buffering=0) as file:
            file.write((hours * _HOUR_NS).to_bytes(8, "little", signed=True))

    (tmp_path / "sitecustomize.py").write_text(_SHIFTED.format(path=str(clock)))
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    service = start_service(program=("env", f"PYTHONPATH={path}", *_SIDELIGHT))

    def post(halves: list[tuple[int, str]]) -> None:
        for count, (number, side) in enumerate(halves):
            if count % 50 == 0:
                jump(_JUMPS[count // 50 % len(_JUMPS)])
            payload = (
                {"instances": [[number, 1]]} if side == "request" else {"predictions": [number]}
            )
            assert service.post(json.dumps(payload), _headers(number, side)).status_code == 200

    halves = [(number, side) for number in range(_N) for side in ("request", "response")]
    # The second half of each comes long after the first one.
    halves.sort(key=lambda half: (half[0] % 2, half[0] * (1 if half[1] == "request" else -1)))
    # Cut where some have only their first half.
    post(halves[: _N // 2])
    jump(2)
    service.wait_for(
        lambda metrics: metrics.total("orphans_total") > 0, "halves are given up two hours later"
    )
    post(halves[_N // 2 :])
    metrics = service.wait_for(
        lambda metrics: (
            metrics.total("journal_lag_events") == 0 and metrics.total("inferences_total") >= _N
        ),
        "all are paired, those that were given up too",
    )
    given_up = metrics.total("orphans_total")
    print(f"\n{given_up:.0f} of {_N} were given up before their other half came")
    assert given_up
    assert metrics.total("orphans_completed_total") == given_up

    found = service.get_all("/v1/inferences")
    assert Counter(item["request_id"] for item in found) == Counter(f"r{i}" for i in range(_N))
    for item in found:
        number = int(item["request_id"][1:])
        assert item["orphan"] is None
        assert [row["outputs"] for row in item["rows"]] == [{"y": number}]
        # An answer before its question is no latency.
        assert item["latency_ms"] is None or item["latency_ms"] >= 0
    assert metrics.total("duplicate_events_total") == 0
    assert metrics.total("quarantined_events_total") == 0
    assert service.stop() == 0
    verified = service.command("verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
