"""Retention and legal holds with real processes: what is old goes, killed at any moment or not."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.services.conftest import wait_until

if TYPE_CHECKING:
    from tests.services.conftest import Service

_N = 60
_KILLS = 4
# Sweeps of this retention are most of a minute apart.
_PATIENCE_S = 300.0


def _send(service: "Service", number: int, at: datetime, deployment: str = "flights") -> None:
    for side, payload in (
        ("request", {"instances": [[number, 1]]}),
        ("response", {"predictions": [number]}),
    ):
        headers = {
            "ce-specversion": "1.0",
            "ce-type": f"org.kubeflow.serving.inference.{side}",
            "ce-source": "/x",
            "ce-id": f"{deployment}{number}",
            "ce-namespace": "prod",
            "ce-inferenceservicename": deployment,
            "ce-time": at.isoformat(),
            "content-type": "application/json",
        }
        assert service.post(json.dumps(payload), headers).status_code == 200


def _kill(service: "Service", part: str, rng: random.Random) -> None:
    """Kill a process at some moment after its start, when the consumer has begun to sweep."""
    found: dict[str, int] = {}

    def is_back() -> bool:
        found.update(service.children())
        return part in found

    wait_until(is_back, f"{part} is back", timeout_s=_PATIENCE_S)
    # Not to synchronise: where it is killed is left to chance.
    time.sleep(rng.uniform(0.3, 1.0))
    os.kill(found[part], signal.SIGKILL)


def _left(service: "Service") -> set[str]:
    return {item["request_id"] for item in service.get_all("/v1/inferences")}


def _wait_left(service: "Service", expected: set[str]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while (left := _left(service)) != expected:
        assert time.monotonic() < deadline, left ^ expected
        time.sleep(0.05)


def _hold(service: "Service", *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*service.program, "hold", *arguments, "--data", str(service.data)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _config(**audit: str) -> dict[str, Any]:
    return {
        "deployments": [{"name": "prod/flights", "retention": "1800s"}],
        "audit": audit,
    }


def test_old_rows_go_whatever_is_killed_and_held_ones_stay(
    start_service: "Callable[..., Service]",
) -> None:
    service = start_service(config=_config())
    old, now = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC)
    held = _hold(
        service,
        *("add", "--deployment", "prod/flights", "--reason", "a case"),
        *("--to", (old - timedelta(minutes=30)).isoformat()),
    )
    assert held.returncode == 0, held.stderr
    rng = random.Random(7)
    for number in range(_N):
        # One of three is young, one old, one old and on hold.
        at = (now, old, old - timedelta(hours=1))[number % 3]
        _send(service, number, at)
        if number % (_N // _KILLS) == 5:
            _kill(service, ("consumer", "detection")[number // (_N // _KILLS) % 2], rng)
    stay = {f"flights{number}" for number in range(_N) if number % 3 != 1}
    service.wait_for(
        lambda metrics: metrics.total("expired_rows_total", table="inferences") == _N // 3,
        "what is old was deleted once",
        timeout_s=_PATIENCE_S,
    )

    _wait_left(service, stay)
    # A consumer that has just started has not told them yet.
    service.wait_for(
        lambda metrics: metrics.total("disk_free_bytes") > 0 and metrics.total("legal_holds") == 1,
        "room and holds are told",
        timeout_s=_PATIENCE_S,
    )
    hold = json.loads(held.stdout)["id"]
    released = _hold(service, "release", hold, "--reason", "it is over")
    assert released.returncode == 0, released.stderr
    _wait_left(service, {f"flights{number}" for number in range(0, _N, 3)})
    assert service.stop() == 0
    assert service.command("verify").returncode == 0
    assert "old rows not deleted" not in service.log.read_text()


def test_the_archive_is_retired_and_still_verified(
    start_service: "Callable[..., Service]",
) -> None:
    service = start_service(config=_config(raw_retention="1s"))
    old = datetime.now(UTC) - timedelta(hours=1)
    for number in range(10):
        _send(service, number, old)
    (first,) = (service.data / "raw").glob("*.seg")
    # A start seals what was there; from then on it may go a second after it arrived.
    config = _config(raw_retention="1s")
    config["deployments"][0]["retention"] = "1s"
    service._config.write_text(json.dumps(config))
    service.kill()
    service.start()

    wait_until(lambda: not first.exists(), "it is retired", timeout_s=_PATIENCE_S)
    running = service.command("verify")
    assert running.returncode == 0, running.stdout
    assert "20 records retired" in running.stdout
    service.kill()
    service.start()
    _send(service, 99, datetime.now(UTC))
    assert service.stop() == 0
    verified = service.command("verify")
    assert verified.returncode == 0, verified.stdout
    assert "20 records retired" in verified.stdout
    assert "2 records, " in verified.stdout
