"""Import and replay with real processes: the archive alone is enough to have everything again."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ROWS = 500
_DAY = 1_357_000_000


def _run(service: Any, *arguments: str) -> dict[str, int]:
    command = [*service.program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counts: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return counts


def _inferences(service: Any) -> list[dict[str, Any]]:
    items = service.get_all("/v1/inferences", order="time")
    for item in items:
        del item["raw"]
    return sorted(items, key=lambda item: str(item["id"]))


def test_an_imported_table_is_found_and_a_replay_gives_the_same_again(
    start_service: Callable[..., Any], tmp_path: Path
) -> None:
    table = tmp_path / "flights.csv"
    lines = [
        f"r{number},{_DAY + 60 * number},{number % 50},{number / _ROWS}" for number in range(_ROWS)
    ]
    table.write_text("\n".join(["id,at,age,score", *lines]) + "\n")
    first = start_service("first")
    options = ["--deployment", "prod/flights", "--output", "score", "--id", "id"]
    options += ["--time", "at"]
    for _ in range(2):
        counts = _run(first, "import", str(table), "--to", first.url, *options)
        assert counts == {"files": 1, "events": 2 * _ROWS, "refused": 0}
    first.wait_stored(_ROWS)
    stored = _inferences(first)
    # The door itself is asked for it: what answers late is not in the metrics.
    counted = first.wait_for(
        lambda metrics: metrics.total("requests_total", outcome="accepted") > 0, "the door answers"
    )
    n_records = counted.total("requests_total", outcome="accepted")

    second = start_service("second")
    data = str(first.data)
    counts = _run(second, "replay", "--data", data, "--to", second.url)
    assert counts == {"records": n_records, "refused": 0, "damaged": 0}
    second.wait_stored(_ROWS)
    assert _inferences(second) == stored

    first.kill()
    into = tmp_path / "third" / "data"
    counts = _run(first, "replay", "--data", data, "--into", str(into))
    assert counts["records"] == n_records
    third = start_service("third")
    third.wait_stored(_ROWS)
    assert _inferences(third) == stored
