"""Every pair of ``tests/wire/pairs``, sent to a running service: its rows, and its bytes."""

import base64
from typing import Any

from tests.adapters.test_conformance_pairs import CASES, SIDES, is_close, sent
from tests.services.conftest import wait_until

# A limit that a slow machine does not reach, nor one that stands still for seconds.
_PATIENCE_S = 240.0
_FIELDS = ("request_id", "component", "synthetic", "version", "latency_ms", "protocol")


def _post(service: Any, head: bytes, body: bytes) -> None:
    lines = head.split(b"\r\n")[1:-2]
    headers = [tuple(line.split(b": ", 1)) for line in lines]
    answer = service.client.post(f"{service.url}/", content=body, headers=headers)
    assert (answer.status_code, answer.content) == (200, b"")


def _stored(service: Any) -> dict[str, dict[str, Any]]:
    found = service.get("/v1/inferences", limit=1000)["items"]
    return {item["deployment"].removeprefix("acc/"): item for item in found}


def test_what_was_sent_is_what_is_shown(service: Any) -> None:
    for number, case in enumerate(CASES.values()):
        for side in SIDES if number % 2 else SIDES[::-1]:
            _post(service, *sent(case, side))
    wait_until(lambda: len(_stored(service)) == len(CASES), "all are found", timeout_s=_PATIENCE_S)

    stored = _stored(service)

    for name, case in CASES.items():
        item = stored[name]
        rows = [[row["features"], row["outputs"]] for row in item["rows"]]
        assert is_close(rows, case["rows"]), (name, rows)
        assert item["orphan"] is None, name
        for field in _FIELDS:
            if field in case:
                assert item[field] == case[field], (name, field)
        wanted = case.get("tags", {})
        assert {tag: item["tags"].get(tag) for tag in wanted} == wanted, name
        raw = service.get(f"/v1/inferences/{item['id']}", raw="true")["raw"]
        for side in SIDES:
            assert base64.b64decode(raw[side]["payload"]) == sent(case, side)[1], name
