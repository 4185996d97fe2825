"""The auditor's guide, command by command, on the folder of a service that was stopped."""

import base64
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from tests.services.conftest import _SIDELIGHT

if TYPE_CHECKING:
    from tests.services.conftest import Service

_GUIDE = Path(__file__).parents[2] / "docs" / "audit.md"
_N = 40


def _send(service: "Service", number: int, side: str) -> bytes:
    payload = (
        {"inputs": [_tensor("income", 1640 + 24 * number), _tensor("age", 20 + number)]}
        if side == "request"
        else {"outputs": [{**_tensor("approved", number > 25), "datatype": "BOOL"}]}
    )
    body = json.dumps(payload).encode()
    headers = {
        "ce-specversion": "1.0",
        "ce-type": "org.kubeflow.serving.inference." + side,
        "ce-source": "/test",
        "ce-id": f"r{number}",
        "ce-time": f"2026-03-01T00:{number:02d}:00Z",
        "ce-namespace": "prod",
        "ce-inferenceservicename": "loans",
        "content-type": "application/json",
    }
    assert service.post(body, headers).status_code == 200
    return body


def _tensor(name: str, value: float) -> dict[str, object]:
    return {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}


def _commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", _GUIDE.read_text(), re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def test_every_command_of_the_guide_does_what_it_says(
    start_service: "Callable[..., Service]", tmp_path: Path
) -> None:
    service = start_service()
    bodies = {number: _send(service, number, "request") for number in range(_N)}
    for number in range(_N):
        _send(service, number, "response")
    service.wait_stored(_N)
    assert service.stop() == 0
    folder = tmp_path / "auditor"
    folder.mkdir()
    service.data.rename(folder / "sidelight-data")
    shutil.copy(folder / "sidelight-data" / "access" / "checkpoints.pub", folder)
    said: list[str] = []
    for command in _commands():
        words = shlex.split(command)
        assert words[0] == "sidelight"
        if "ID" in words:
            words[words.index("ID")] = json.loads(said[0])["id"]
        done = subprocess.run(
            [*_SIDELIGHT, *words[1:]],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        said.append(done.stdout)

    one, several, raw, verified, held, _, _, again = said
    found = json.loads(one)
    assert found["request_id"] == "r17"
    assert found["rows"][0]["outputs"] == {"approved": False}
    assert [json.loads(line)["request_id"] for line in several.splitlines()] == [
        *("r19", "r18", "r17", "r16", "r15"),
    ]
    assert base64.b64decode(json.loads(raw)["raw"]["request"]["payload"]) == bodies[17]
    assert verified.startswith("intact")
    assert "hold-" in held
    table = pq.read_table(folder / "case-4711.parquet")
    assert table.column("request_id").to_pylist() == ["r15", "r16", "r17", "r18", "r19"]
    same = json.loads(again)
    assert {**same, "raw": None, "rows": same["rows"]} == {**found, "raw": None}
