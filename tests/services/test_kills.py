"""SIGKILL at every moment: what was acknowledged is stored once, paired, with the right answer.

A sender repeats whatever was not acknowledged with 200, as the platforms' loggers do. Everything
else about it is hostile to a collector: several connections, the halves of an inference on
different ones and in either order, alone or in batches with halves of others.
"""

import contextlib
import http.client
import json
import os
import queue
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import duckdb
import pytest
from tests.services.conftest import command_of, wait_until

from sidelight.adapters import EmbeddedDocuments
from sidelight.adapters._lake_manifest import Manifest

if TYPE_CHECKING:
    from tests.services.conftest import Service

_N_CONNECTIONS = 4
_N_KILLS = 50
_N_INJECTED = 21
# A slow machine is killed less often, not for longer.
_KILLING_S = 240.0
# So many are sent as fast as the pauses allow; a slow machine needs longer for the kills, not more.
_MANY_INFERENCES = 20_000
# Limits that a slow machine does not reach, nor one that stands still for seconds.
_RECOVERY_S = 180.0
_STREAM_INFERENCES = 500
_STREAM_ROWS = 10
_STREAM_KILLS = 5
_PARTS = ("door", "consumer", "detection", "serve")
# What the archive, the state and the lake stand on, and how the door answers.
_SYSTEM_CALLS = {
    "door": ("writev", "fdatasync", "write", "futex"),
    "consumer": ("pwrite64", "fdatasync", "fsync", "mkdir", "openat"),
    "detection": ("pwrite64", "fdatasync", "fsync", "rename"),
}
_TYPE = "org.kubeflow.serving.inference."


def _n_rows(number: int) -> int:
    return 1 + number % 3


def _answer(number: float, row: float) -> float:
    return 2 * number + 5 * row + 1


def _attributes(number: int, side: str) -> dict[str, str]:
    return {
        "specversion": "1.0",
        "id": f"r{number}",
        "source": "http://localhost:9081/",
        "type": _TYPE + side,
        "namespace": "prod",
        "inferenceservicename": f"income{number % 2}",
    }


def _payload(number: int, side: str) -> dict[str, Any]:
    rows = range(_n_rows(number))
    if side == "request":
        return {"instances": [[number, row] for row in rows]}
    return {"predictions": [_answer(number, row) for row in rows]}


def _single(number: int, side: str) -> tuple[bytes, dict[str, str]]:
    headers = {f"ce-{name}": value for name, value in _attributes(number, side).items()}
    return _json(_payload(number, side)), {**headers, "content-type": "application/json"}


def _batch(members: list[tuple[int, str]]) -> tuple[bytes, dict[str, str]]:
    events = [
        {
            **_attributes(number, side),
            "datacontenttype": "application/json",
            "data": _payload(number, side),
        }
        for number, side in members
    ]
    return _json(events), {"content-type": "application/cloudevents-batch+json"}


def _json(value: Any) -> bytes:
    # One spelling: an event that is sent again is the same bytes, alone or in a batch.
    return json.dumps(value, separators=(",", ":")).encode()


class Traffic:
    """Threads that send until they are told to finish, and then what they still have."""

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._lock = threading.Lock()
        self._random = random.Random(seed)
        self._halves: list[queue.SimpleQueue[tuple[int, str]]] = [
            queue.SimpleQueue() for _ in range(_N_CONNECTIONS)
        ]
        self._finishing = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number, seed + number), daemon=True)
            for number in range(_N_CONNECTIONS)
        ]
        self.n_inferences = 0
        self.acknowledged_requests = 0
        self.acknowledged_events = 0
        self.repeated_events = 0

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._finishing.set()
        for thread in self._threads:
            thread.join(_RECOVERY_S)
        assert not any(thread.is_alive() for thread in self._threads), "sending does not end"

    def wait_acknowledged(self, more: int = 1) -> None:
        """Return right after so many more requests were acknowledged."""
        wanted = self.acknowledged_requests + more
        deadline = time.monotonic() + _RECOVERY_S
        while self.acknowledged_requests < wanted:
            assert time.monotonic() < deadline, "nothing is acknowledged any more"
            time.sleep(0.0005)

    def _run(self, place: int, seed: int) -> None:
        rng = random.Random(seed)
        # What is not answered by then is sent again, as after a kill.
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        while True:
            self._plan(place)
            members = self._take(place, 1 if rng.random() < 0.5 else rng.randint(2, 8))
            if members:
                body, headers = _single(*members[0]) if len(members) == 1 else _batch(members)
                self._deliver(connection, body, headers, len(members))
            elif self._finishing.is_set():
                break
            # Not as fast as it goes: the stream has to last longer than the kills.
            pause_s = 0.02 if self.n_inferences < _MANY_INFERENCES else 0.5
            time.sleep(rng.expovariate(1 / pause_s))
        connection.close()

    def _plan(self, place: int) -> None:
        """Begin an inference: one half on this connection, the other on another, in any order."""
        with self._lock:
            if self._finishing.is_set():
                return
            other = (place + self._random.randrange(1, _N_CONNECTIONS)) % _N_CONNECTIONS
            places = [place, other]
            self._random.shuffle(places)
            for half, side in zip(places, ("request", "response"), strict=True):
                self._halves[half].put((self.n_inferences, side))
            self.n_inferences += 1

    def _take(self, place: int, most: int) -> list[tuple[int, str]]:
        members: list[tuple[int, str]] = []
        with contextlib.suppress(queue.Empty):
            while len(members) < most:
                members.append(self._halves[place].get_nowait())
        return members

    def _deliver(
        self,
        connection: http.client.HTTPConnection,
        body: bytes,
        headers: dict[str, str],
        n_events: int,
    ) -> None:
        deadline = time.monotonic() + _RECOVERY_S
        while not _is_acknowledged(connection, body, headers):
            assert time.monotonic() < deadline, "the door does not come back"
            with self._lock:
                self.repeated_events += n_events
            time.sleep(0.01)
        with self._lock:
            self.acknowledged_requests += 1
            self.acknowledged_events += n_events


def _is_acknowledged(
    connection: http.client.HTTPConnection, body: bytes, headers: dict[str, str]
) -> bool:
    try:
        connection.request("POST", "/", body, headers)
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return False
    return answer.status == 200


class Killer:
    """Kills parts of a running service and sees to it that they come back."""

    def __init__(self, service: "Service", traffic: Traffic) -> None:
        self._service = service
        self._traffic = traffic
        self.kills: Counter[str] = Counter()
        self.restart_s: list[float] = []
        self._enough = time.monotonic() + _KILLING_S

    def has_had_enough(self) -> bool:
        """Whether a slow machine has taken so long that these are kills enough."""
        return bool(self.restart_s) and time.monotonic() > self._enough

    def kill(self, part: str) -> None:
        if part == "serve":
            self.kill_all()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid(part), signal.SIGKILL)
            self.kills[part] += 1

    def kill_all(self) -> None:
        """Kill the supervisor, whose children end by themselves, and start at once again."""
        self._service.kill()
        self.kills["serve"] += 1
        started = time.monotonic()
        self._service.start()
        self.restart_s.append(time.monotonic() - started)

    def kill_at(self, part: str, call: str, when: int) -> None:
        """Let a part die in its n-th system call of a kind from now on."""
        pid = self._pid(part)
        tracer = subprocess.Popen(
            [
                *("strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}"),
                *("-e", f"inject={call}:signal=SIGKILL:when={when}", "-p", str(pid)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            said = tracer.communicate(timeout=5)[1]
            # Nobody is permitted to trace one that is about to be gone, either.
            assert b"not permitted" not in said or not command_of(pid), said
            kind = f"{part} at {call}"
        except subprocess.TimeoutExpired:
            # A call that is rare: then at any moment.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            tracer.communicate(timeout=_RECOVERY_S)
            kind = part
        self.kills[kind] += 1

    def wait_recovered(self) -> None:
        """Return when those that somebody waits for are there, and acknowledge again."""
        deadline = time.monotonic() + _RECOVERY_S
        while not set(self._service.children()) >= {"door", "consumer", "api"}:
            assert time.monotonic() < deadline, "a killed process does not come back"
            time.sleep(0.005)
        self._traffic.wait_acknowledged()

    def _pid(self, part: str) -> int:
        deadline = time.monotonic() + _RECOVERY_S
        while (pid := self._service.children().get(part)) is None:
            assert time.monotonic() < deadline, f"there is no {part}"
            time.sleep(0.005)
        return pid


def _moment(rng: random.Random) -> float:
    """Return how long to wait after an acknowledgement; half of the time next to nothing."""
    return rng.expovariate(1 / 0.003) if rng.random() < 0.5 else rng.uniform(0, 0.25)


def test_what_was_acknowledged_is_stored_once_whatever_is_killed(service: "Service") -> None:
    rng = random.Random(20261)
    with Traffic(service.port, seed=1) as traffic:
        killer = Killer(service, traffic)
        parts = [_PARTS[number % len(_PARTS)] for number in range(_N_KILLS)]
        rng.shuffle(parts)
        for part in parts:
            if killer.has_had_enough():
                break
            traffic.wait_acknowledged(rng.randint(1, 10))
            time.sleep(_moment(rng))
            killer.kill(part)
            killer.wait_recovered()

    _tell(traffic, killer)
    _assert_everything_is_stored_once(service, traffic)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_what_was_acknowledged_is_stored_once_whatever_system_call_is_the_last(
    service: "Service",
) -> None:
    rng = random.Random(20262)
    with Traffic(service.port, seed=2) as traffic:
        killer = Killer(service, traffic)
        for number in range(_N_INJECTED):
            if killer.has_had_enough():
                break
            part = ("door", "consumer", "detection")[number % 3]
            calls = _SYSTEM_CALLS[part]
            killer.kill_at(part, calls[number // 3 % len(calls)], when=rng.randint(1, 12))
            killer.wait_recovered()
            if number % 6 == 5:
                # A new supervisor restarts at once what an old one makes wait for seconds.
                killer.kill_all()

    _tell(traffic, killer)
    _assert_everything_is_stored_once(service, traffic)


def _tell(traffic: Traffic, killer: Killer) -> None:
    restarts = sorted(killer.restart_s)
    print(
        f"\n{sum(killer.kills.values())} kills {dict(killer.kills)}; "
        f"{traffic.n_inferences} inferences, {traffic.acknowledged_events} events acknowledged, "
        f"{traffic.repeated_events} repeated; from restart to ready: median "
        f"{restarts[len(restarts) // 2]:.2f} s, longest {restarts[-1]:.2f} s"
    )


def _assert_everything_is_stored_once(service: "Service", traffic: Traffic) -> None:
    n = traffic.n_inferences
    assert traffic.acknowledged_events == 2 * n
    service.wait_stored(n)
    metrics = service.wait_for(
        lambda metrics: metrics.total("detector_rows_total") >= sum(map(_n_rows, range(n))),
        "all rows are judged",
    )
    counted = {
        name: metrics.total(name)
        for name in (
            *("inferences_total", "inference_rows_total", "detector_rows_total", "orphans_total"),
            *("quarantined_events_total", "key_reused_events_total", "unreadable_events_total"),
            "undecoded_events_total",
        )
    }
    n_rows = sum(map(_n_rows, range(n)))
    assert counted == {
        **dict.fromkeys(counted, 0),
        "inferences_total": n,
        "inference_rows_total": n_rows,
        "detector_rows_total": n_rows,
    }
    # Only now has each row the score that it will keep.
    found = service.get_all("/v1/inferences")
    _assert_all_sound(found, n)
    # Every event was received at least once, and all that came twice was known as such.
    received = metrics.total("events_received_total")
    assert received == 2 * n + metrics.total("duplicate_events_total")
    assert service.stop() == 0
    verified = service.command("verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert _queried(service) == {item["request_id"]: item for item in found}
    _assert_lake_holds_each_row_once(service.data, n)


def _assert_all_sound(items: list[dict[str, Any]], n: int) -> None:
    assert Counter(item["request_id"] for item in items) == Counter(f"r{i}" for i in range(n))
    assert len({item["id"] for item in items}) == n
    for item in items:
        number = int(item["request_id"][1:])
        assert item["orphan"] is None
        assert item["deployment"] == f"prod/income{number % 2}"
        assert [(row["features"], row["outputs"]) for row in item["rows"]] == [
            ({"f0": number, "f1": row}, {"y": _answer(number, row)})
            for row in range(_n_rows(number))
        ]


def _queried(service: "Service") -> dict[str, dict[str, Any]]:
    """Return what the command finds, page by page, by request id."""
    items: dict[str, dict[str, Any]] = {}
    cursor: tuple[str, ...] = ()
    while True:
        page = service.command("query", "--limit", "1000", *cursor)
        assert page.returncode == 0, page.stderr
        for line in page.stdout.splitlines():
            item = json.loads(line)
            assert item["request_id"] not in items, "a page repeats an inference"
            items[item["request_id"]] = item
        if not page.stderr:
            return items
        cursor = ("--cursor", page.stderr.split("--cursor ")[1].strip())


def _assert_lake_holds_each_row_once(data: Path, n: int) -> None:
    """Ask the Parquet files themselves, as DuckDB would without us."""
    documents = EmbeddedDocuments(data)
    try:
        manifest = Manifest(documents)
        tables = {
            name: [str(data / "lake" / file.path) for file in files]
            for name, files in (
                ("inferences", manifest.files("inferences")),
                ("scores", manifest.files("scores")),
            )
        }
    finally:
        documents.close()
    rows = sum(map(_n_rows, range(n)))
    assert _rows_and_distinct(tables["inferences"]) == (rows, rows)
    # No row was scored before there was a reference: how many that are, the order decides.
    scores, distinct = _rows_and_distinct(tables["scores"])
    assert scores == distinct
    assert 0 < scores <= rows


def _rows_and_distinct(files: list[str]) -> tuple[int, int]:
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT count(*), count(DISTINCT (id, row)) FROM read_parquet(?, union_by_name=true)",
            [files],
        ).fetchone()
    assert found is not None
    return found[0], found[1]


def test_detection_continues_after_kills_as_if_nothing_had_happened(
    start_service: "Callable[..., Service]",
) -> None:
    undisturbed, disturbed = start_service(name="undisturbed"), start_service(name="disturbed")
    _send_stream(undisturbed, kills=frozenset())
    rng = random.Random(20263)
    # While the reference is collected, before and after the change, and while it becomes an alarm.
    part = _STREAM_INFERENCES // _STREAM_KILLS
    kills = frozenset(number * part + rng.randrange(part) for number in range(_STREAM_KILLS))
    _send_stream(disturbed, kills)

    expected, found = _judged(undisturbed), _judged(disturbed)
    assert found == expected
    drifts = [alarm for alarm in expected["alarms"] if alarm["kind"] == "drift"]
    assert [alarm["features"][0]["name"] for alarm in drifts] == ["f0"]
    assert len(expected["verdicts"]) > 4
    scores = [score for inference in expected["scores"].values() for score in inference]
    assert sum(score is not None for score in scores) > 3 * _STREAM_ROWS * _STREAM_INFERENCES / 5


def _send_stream(service: "Service", kills: frozenset[int]) -> None:
    """Send the same events in the same order; the first feature moves after three fifths."""
    # The rows are the same whatever the kills draw.
    rng, moments = random.Random(5), random.Random(6)
    n_killed = 0
    for number in range(_STREAM_INFERENCES):
        shift = 1.5 if number > 3 * _STREAM_INFERENCES / 5 else 0.0
        rows = [[rng.gauss(shift, 1), rng.gauss(0, 1)] for _ in range(_STREAM_ROWS)]
        payloads = {
            "request": {"instances": rows},
            "response": {"predictions": [sum(r) for r in rows]},
        }
        for side, payload in payloads.items():
            headers = {
                **{f"ce-{name}": value for name, value in _attributes(0, side).items()},
                "ce-id": f"s{number}",
                "ce-time": f"2026-03-01T00:{number // 60:02d}:{number % 60:02d}Z",
                "content-type": "application/json",
            }
            assert service.post(_json(payload), headers).status_code == 200
        if number in kills:
            # Detection, whoever decodes for it, and both at once.
            parts = (("detection",), ("consumer",), ("detection", "consumer"))[n_killed % 3]
            n_killed += 1
            _kill(service, parts, moments, n_sent=(number + 1) * _STREAM_ROWS)


def _kill(service: "Service", parts: tuple[str, ...], rng: random.Random, *, n_sent: int) -> None:
    """Kill at some moment after more of the stream was judged, or all of it."""
    judged = service.metrics().total("detector_rows_total")
    service.wait_for(
        lambda metrics: metrics.total("detector_rows_total") >= min(judged + 1, n_sent),
        "rows are judged",
    )
    time.sleep(_moment(rng))
    children: dict[str, int] = {}

    def all_run() -> bool:
        children.clear()
        children.update(service.children())
        return children.keys() >= set(parts)

    wait_until(all_run, f"{parts}", timeout_s=_RECOVERY_S)
    for part in parts:
        os.kill(children[part], signal.SIGKILL)


def _judged(service: "Service") -> dict[str, Any]:
    service.wait_stored(_STREAM_INFERENCES)
    n_rows = _STREAM_INFERENCES * _STREAM_ROWS
    metrics = service.wait_for(
        lambda metrics: metrics.total("detector_rows_total") >= n_rows, "all rows are judged"
    )
    return {
        "rows": metrics.total("detector_rows_total"),
        "outlier_rows": metrics.total("outlier_rows_total"),
        "alarms_counted": metrics.total("drift_alarms_total"),
        "alarms": service.get_all("/v1/alarms", order="time"),
        "verdicts": service.get_all("/v1/verdicts", order="time"),
        "scores": {
            item["request_id"]: [row["outlier_score"] for row in item["rows"]]
            for item in service.get_all("/v1/inferences")
        },
    }
