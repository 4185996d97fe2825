"""Thousands of golden samples, edited by chance, at a running service."""

import http.client
import random
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz.fuzz_events import seeds

if TYPE_CHECKING:
    from tests.services.conftest import Service

_N_REQUESTS = 4000
_BEHIND = "behind"
_ANSWERS = {200, 400, 413, 415, 503}
_GROWTH_KB = 192 << 10
# A limit that a slow machine does not reach, nor one that stands still for seconds.
_PATIENCE_S = 240.0
_INSERTED = (
    *(b"", b"\0", b"\xff\xfe", b'"', b"[", b"]", b"{", b"}", b",", b"%00", b"-1", b"9" * 40),
    *(b"1e999", b"null", b"NaN", b"[" * 10_000, b'{"data":' * 2000, b"\\ud800", b"[-1, 4]"),
    *(b"9223372036854775807", b"true", b'"BYTES"', b'"FP32"'),
)


def _edited(rng: random.Random, body: bytes) -> bytes:
    data = bytearray(body)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
        start = rng.randrange(len(data) + 1)
        data[start : start + rng.randrange(12)] = rng.choice(_INSERTED)
    return bytes(data)


def _edited_headers(rng: random.Random, head: bytes) -> tuple[str, list[tuple[str, str]]]:
    request, *lines = head.decode("latin-1").strip().split("\r\n")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    kept = [item for item in headers if rng.random() > 0.03]
    for place, (name, value) in enumerate(kept):
        if rng.random() < 0.06:
            insert = rng.choice(("%", '"', "%ff", "\xe9", "gzip", "application/json", "x" * 300))
            kept[place] = (name, value + insert if rng.random() < 0.5 else insert)
    framing = ("content-length", "transfer-encoding", "host", "connection", "expect")
    return request.split()[1], [item for item in kept if item[0].lower() not in framing]


def test_edited_samples_get_one_of_five_answers_and_cost_the_service_nothing(
    service: "Service",
) -> None:
    rng = random.Random(20264)
    samples = sorted(seeds().items())
    before = service.all_children()
    resident = {part: _resident_kb(pid) for part, pid in before.items()}
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=_PATIENCE_S)
    answers: dict[int, int] = {}
    for _ in range(_N_REQUESTS):
        name, data = rng.choice(samples)
        head, _, body = data.partition(b"\r\n\r\n")
        path, headers = _edited_headers(rng, head)
        sent = _edited(rng, body)
        connection.putrequest("POST", _path(path))
        for key, value in headers:
            connection.putheader(key, value)
        connection.putheader("Content-Length", str(len(sent)))
        connection.endheaders(sent)
        answer = connection.getresponse()
        answer.read()
        assert answer.status in _ANSWERS, (answer.status, name, headers, sent[:200])
        answers[answer.status] = answers.get(answer.status, 0) + 1
    connection.close()
    print(f"\nanswers: {dict(sorted(answers.items()))}")
    assert answers[200] > _N_REQUESTS / 4
    assert answers[400]

    # What comes behind it has been judged, and the lag, told each second, says the same of it.
    _send_behind(service)
    metrics = service.wait_for(
        lambda metrics: (
            metrics.total("detector_rows_total", namespace=_BEHIND) == 1
            and not metrics.total("journal_lag_events")
        ),
        "everything is worked off",
        timeout_s=_PATIENCE_S,
    )
    assert service.children() == before, "a process ended on the way"
    assert metrics.total("undecoded_events_total", reason="unforeseen") == 0
    assert metrics.total("quarantined_events_total", reason="internal") == 0
    assert metrics.total("detector_errors_total") == 0
    for part, pid in before.items():
        assert _resident_kb(pid) - resident[part] < _GROWTH_KB, part
    assert service.stop() == 0
    verified = service.command("verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def _send_behind(service: "Service") -> None:
    for side, body in (
        ("request", b'{"instances": [[1]]}'),
        ("response", b'{"predictions": [1]}'),
    ):
        headers = {
            "ce-specversion": "1.0",
            "ce-type": f"org.kubeflow.serving.inference.{side}",
            "ce-source": "/fuzz",
            "ce-id": "behind",
            "ce-namespace": _BEHIND,
            "ce-inferenceservicename": "behind",
            "content-type": "application/json",
        }
        assert service.post(body, headers).status_code == 200


def _path(path: str) -> str:
    routes = {"/", "/events", "/dead-letter", "/consumer/kserve/v2"}
    return path if path in routes else "/"


def _resident_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS")))
