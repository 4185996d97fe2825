"""Backup and restore under load, with real processes."""

import itertools
import json
import shutil
import subprocess
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import httpx
from tests.services.conftest import command_of, wait_until

if TYPE_CHECKING:
    from tests.services.conftest import Service

_BACKUPS = 2
_PATIENCE_S = 240.0


class _Load:
    """Sends inferences one after the other; knows which of them were acknowledged."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self.acknowledged = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(timeout=60) as client:
            for number in itertools.count():
                if self._stopping.is_set():
                    return
                for side, payload in (
                    ("request", {"instances": [[number, 1]]}),
                    ("response", {"predictions": [number]}),
                ):
                    headers = {
                        "ce-specversion": "1.0",
                        "ce-type": f"org.kubeflow.serving.inference.{side}",
                        "ce-source": "/x",
                        "ce-id": f"r{number}",
                        "ce-namespace": "prod",
                        "ce-inferenceservicename": "flights",
                        "content-type": "application/json",
                    }
                    answer = client.post(self._service.url, json=payload, headers=headers)
                    assert answer.status_code == 200
                self.acknowledged = number + 1


def _wait_for_more(service: "Service", load: _Load, n: int) -> None:
    wanted = load.acknowledged + n
    service.wait_for(
        lambda metrics: metrics.total("inferences_total") >= wanted,
        "more was stored",
        timeout_s=_PATIENCE_S,
    )


def test_a_backup_under_load_is_intact_and_starts_with_everything_acknowledged_before(
    start_service: "Callable[..., Service]",
) -> None:
    service = start_service()
    key = service.data / "access" / "checkpoints.pub"
    had = []
    with _Load(service) as load:
        for number in range(_BACKUPS):
            _wait_for_more(service, load, 50)
            had.append(load.acknowledged)
            target = service.data.with_name(f"copy{number}")
            command = ["export", "--backup", str(target), "--data", str(service.data)]
            done = subprocess.run(
                [*service.program, *command], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert done.stdout.startswith("intact: ")
    children = service.children()
    service.kill()
    # They end by themselves, and until then have files in the folder.
    wait_until(
        lambda: not any(command_of(pid) for pid in children.values()),
        "all of it is gone",
        timeout_s=_PATIENCE_S,
    )
    # What was lost is lost, with it everything that was not copied.
    shutil.rmtree(service.data)
    target.rename(service.data)
    shutil.copytree(service.data, target)
    service.start()

    restored = service.wait_for(
        lambda metrics: metrics.total("inferences_total") >= had[-1],
        "all of it is stored",
        timeout_s=_PATIENCE_S,
    )
    items = service.get_all("/v1/inferences")
    numbers = sorted(int(item["request_id"][1:]) for item in items)
    assert len(set(numbers)) == len(numbers)
    assert set(range(had[-1])) <= set(numbers)
    assert restored.total("quarantined_events_total") == 0
    assert service.stop() == 0
    verified = service.command("verify", "--public-key", str(key))
    assert verified.returncode == 0, verified.stdout
    assert "export --backup" in "".join(
        json.loads(line).get("command", "")
        for log in sorted((service.data / "access").glob("log-*.jsonl"))
        for line in log.read_text().splitlines()
    )
