"""A data folder whose disk is full to the last block: refused, not lost, and taken up again."""

import contextlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.services.conftest import _SIDELIGHT, run_command, wait_until

from sidelight.service._demo_client import Metrics

if TYPE_CHECKING:
    from tests.services.conftest import Service

_SIZE = "64m"
_PATIENCE_S = 180.0
_N_BEFORE = 100
_N_WHILE_FULL = 200
# A file system of its own, which nobody but this process tree sees.
_MOUNT = 'mkdir -p "$0" && mount -t tmpfs -o size=' + _SIZE + ' tmpfs "$0" && exec "$@"'


class Disk:
    """The file system of a running service, seen from outside."""

    def __init__(self, service: "Service") -> None:
        self.root = Path(f"/proc/{service.pid}/root{service.data}")
        self._filler = self.root / "filler"

    def fill(self) -> None:
        """Leave not one block."""
        with self._filler.open("ab", buffering=0) as filler, contextlib.suppress(OSError):
            for block in (bytes(1 << 20), bytes(4096)):
                with contextlib.suppress(OSError):
                    while filler.write(block) == len(block):
                        pass

    def free(self) -> None:
        self._filler.unlink()


@pytest.fixture
def service(start_service: "Callable[..., Service]", tmp_path: Path) -> "Service":
    """A service on a disk of its own, without a watermark, so that the disk can be full."""
    data = tmp_path / "service" / "data"
    program = ("unshare", "-Urm", "sh", "-c", _MOUNT, str(data), *_SIDELIGHT)
    return start_service(config={"limits": {"disk_free": "0B"}}, program=program)


def _send(service: "Service", number: int, side: str) -> int:
    payload = {"instances": [[number, 1]]} if side == "request" else {"predictions": [number]}
    headers = {
        "ce-specversion": "1.0",
        "ce-type": "org.kubeflow.serving.inference." + side,
        "ce-source": "/test",
        "ce-id": f"r{number}",
        "ce-namespace": "prod",
        "ce-inferenceservicename": "income",
        "content-type": "application/json",
    }
    # Large enough that a few hundred do not hide in what is already allocated.
    answer = service.post(json.dumps(payload) + " " * 20_000, headers)
    if answer.status_code == 503:
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code


def _is_copied(data: Path, copy: Path) -> bool:
    """Copy the archive of a running service, which may be signing its progress meanwhile."""
    shutil.rmtree(copy, ignore_errors=True)
    try:
        shutil.copytree(data / "raw", copy / "raw")
    except OSError:
        return False
    shutil.copy(data / "format", copy)
    return not [*copy.rglob("*.tmp")]


def test_a_full_disk_loses_nothing_and_everything_goes_on_behind_it(service: "Service") -> None:
    disk = Disk(service)
    for number in range(_N_BEFORE):
        assert {_send(service, number, side) for side in ("request", "response")} == {200}
    parts = service.all_children()

    disk.fill()
    refused: list[tuple[int, str]] = []
    answers: Counter[int] = Counter()
    for number in range(_N_BEFORE, _N_BEFORE + _N_WHILE_FULL):
        disk.fill()
        for side in ("request", "response"):
            status = _send(service, number, side)
            answers[status] += 1
            if status != 200:
                refused.append((number, side))
    assert set(answers) <= {200, 503}
    assert answers[503]

    disk.free()
    for number, side in refused:
        while (status := _send(service, number, side)) != 200:
            assert status == 503
    n = _N_BEFORE + _N_WHILE_FULL
    found = service.wait_stored(n)

    assert Counter(item["request_id"] for item in found) == Counter(f"r{i}" for i in range(n))
    assert all(item["orphan"] is None for item in found)
    assert service.children() == parts, "a process ended over it"

    def judged(metrics: Metrics) -> bool:
        return metrics.total("detector_rows_total") >= n

    assert service.wait_for(judged, "all rows are judged").total("detector_rows_total") == n
    copy = service.data.with_name("copy")
    wait_until(lambda: _is_copied(disk.root, copy), "a whole copy", timeout_s=_PATIENCE_S)
    assert service.stop() == 0
    verified = run_command("verify", "--data", str(copy))
    assert verified.returncode == 0, verified.stdout + verified.stderr
