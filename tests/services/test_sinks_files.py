"""Captured events become files: whole ones, each event once, whatever is killed or full."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import orjson
import pyarrow.parquet as pq
import pytest
import uvloop
from cloudevents.core.formats.json import JSONFormat

from sidelight.adapters import FileFormat, FileSink
from sidelight.logger import Accounts, Capture, Delivery, Emitter, Exchange
from sidelight.logger._outlet import EmitterLimits, SpoolFolder

if TYPE_CHECKING:
    from tests.services.s3_server import S3Server

_BUCKET = "sidelight"
_LIMITS = EmitterLimits(
    batch_events=200, linger_s=0.05, spill_after_s=0.05, max_backoff_s=0.5, batch_bytes=1 << 22
)
_PATIENCE_S = 240.0


# Sends batches as an emitter does: what was taken is noted behind it, and a start goes on there.
# Batches have another length after each start, as they have behind a spool.
_WRITER = """
import asyncio, sys
from pathlib import Path
from sidelight.adapters import FileSink, S3Settings
from sidelight.logger import CapturedEvent

where, file_format, endpoint, note, n_batch, n_events = sys.argv[1:]
note = Path(note)
keys = {"access_key": "AKSIDELIGHTTESTS", "secret_key": "not-a-secret-but-like-one"}
s3 = S3Settings(endpoint=endpoint, region="us-east-1", **keys) if endpoint else None


def event(number):
    attributes = (
        '{"specversion":"1.0","source":"/s","type":"t","id":"%d","namespace":"prod",'
        '"inferenceservicename":"m%d","time":"2026-01-31T10:20:30.%06dZ"'
    )
    return CapturedEvent((attributes % (number, number % 3, number)).encode(), b"x" * 2000)


async def run():
    sink = FileSink(where, file_format=file_format, s3=s3)
    print("ready", flush=True)
    position = int(note.read_text()) if note.exists() else 0
    while position < int(n_events):
        batch = range(position, min(position + int(n_batch), int(n_events)))
        delivery = await sink.send([event(number) for number in batch])
        position += delivery.n_taken
        note.with_suffix(".new").write_text(str(position))
        note.with_suffix(".new").replace(note)
    await sink.close()


asyncio.run(run())
"""


def exchange(number: int, *, body: bytes = b'{"inputs":[]}') -> Exchange:
    now = time.time_ns()
    return Exchange(
        method=b"POST",
        target=b"/v2/models/m%d/infer" % (number % 2),
        request_head=b"POST / HTTP/1.1\r\nContent-Type: application/json\r\n"
        b"X-Request-Id: %d\r\n\r\n" % number,
        request_body=body,
        response_head=b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n",
        response_body=b'{"outputs":[%d]}' % number,
        status=200,
        started_ns=now,
        finished_ns=now,
        latency_ms=1.0,
    )


def accounts_of(emitter: Emitter) -> Accounts:
    return emitter.accounts()["sink"]


async def until(claim: Callable[[], object]) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while not claim():  # noqa: ASYNC110 - counters have no event to wait for
            await asyncio.sleep(0.01)


def halves(n_exchanges: int) -> Counter[tuple[str, str]]:
    return Counter(
        (str(number), kind) for number in range(n_exchanges) for kind in ("request", "response")
    )


@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
def test_everything_is_in_the_bucket_once_after_the_store_was_cut_off(
    s3: "S3Server", tmp_path: Path, file_format: FileFormat
) -> None:
    prefix = f"{_BUCKET}/cut-{file_format}"
    n_exchanges = 1500

    async def run() -> Emitter:
        sink = FileSink(f"s3://{prefix}", file_format=file_format, s3=s3.settings)
        emitter = Emitter.of(sink, spool=SpoolFolder(folder=tmp_path / "spool"), limits=_LIMITS)
        await emitter.start()
        for number in range(n_exchanges):
            if number == n_exchanges // 3:
                await until(lambda: accounts_of(emitter).sent)
                s3.kill()
            if number == n_exchanges * 2 // 3:
                await until(lambda: accounts_of(emitter).sink_errors)
                await asyncio.to_thread(s3.start)
            emitter.offer(exchange(number))
            await asyncio.sleep(0.001)
        await until(lambda: not accounts_of(emitter).pending)
        await emitter.flush()
        return emitter

    accounts = accounts_of(uvloop.run(run()))

    assert accounts.sent == accounts.seen == 2 * n_exchanges
    if file_format == "parquet":
        table = pq.read_table(prefix, filesystem=s3.files())
        rows = zip(table["id"].to_pylist(), table["type"].to_pylist(), strict=True)
        found = Counter((event_id, kind.rpartition(".")[2]) for event_id, kind in rows)
    else:
        found = Counter()
        for line in lines_of(s3, prefix):
            event = JSONFormat().read(None, line)
            found[event.get_id(), event.get_type().rpartition(".")[2]] += 1
            assert event.get_data() in ({"inputs": []}, {"outputs": [int(event.get_id())]})
    assert found == halves(n_exchanges)


def lines_of(s3: "S3Server", prefix: str) -> Iterator[bytes]:
    from pyarrow.fs import FileSelector  # noqa: PLC0415 - a client that is not ours

    client = s3.files()
    for info in client.get_file_info(FileSelector(prefix, recursive=True)):
        if info.is_file:
            with client.open_input_stream(info.path) as stream:
                yield from stream.read().splitlines()


def write_and_kill(
    folder: Path, where: str, file_format: FileFormat, check: Callable[[], object], endpoint: str
) -> None:
    """Start the writer again and again and kill it at some moment; let it end at last."""
    note = folder / "note"
    moments = random.Random(7)
    n_events = 30_000
    for n_batch in (999, 1500, 700, 1200, 1999, 800, n_events):
        command = [sys.executable, "-c", _WRITER, where, file_format, endpoint, str(note)]
        writer = subprocess.Popen(
            [*command, str(n_batch), str(n_events)], stdout=subprocess.PIPE, cwd=folder
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        if n_batch < n_events:
            with contextlib.suppress(subprocess.TimeoutExpired):
                writer.wait(moments.uniform(0.02, 0.5))
            writer.kill()
        assert writer.wait(_PATIENCE_S) in {-9, 0}
        writer.stdout.close()
        check()


@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
def test_a_kill_in_the_middle_of_writing_shows_no_half_file_and_doubles_nothing(
    tmp_path: Path, file_format: FileFormat
) -> None:
    events = tmp_path / "events"
    n_seen = Counter[str]()

    def check() -> None:
        for path in events.rglob(f"*.{file_format}"):
            n_seen["files"] += 1
            if file_format == "parquet":
                assert pq.read_table(path, partitioning=None).num_rows
            else:
                text = path.read_bytes()
                assert text.endswith(b"\n")
                assert all(orjson.loads(line)["id"] for line in text.splitlines())
        n_seen["left"] += len(list(events.rglob("*.tmp")))

    write_and_kill(tmp_path, str(events), file_format, check, "")

    reader = "read_parquet" if file_format == "parquet" else "read_json"
    found = duckdb.connect().execute(
        f"select count(*), count(distinct id), count(distinct deployment) from "
        f"{reader}('{events}/**/*.{file_format}', hive_partitioning = true)"
    )
    assert found.fetchall() == [(30_000, 30_000, 3)]
    assert n_seen["files"]
    assert not list(events.rglob("*.tmp"))
    print(dict(n_seen))


def test_a_kill_shows_no_half_object_in_a_bucket(s3: "S3Server", tmp_path: Path) -> None:
    prefix = f"{_BUCKET}/killed"

    def check() -> None:
        with contextlib.suppress(FileNotFoundError):
            pq.read_table(prefix, filesystem=s3.files(), columns=["id"])

    write_and_kill(tmp_path, f"s3://{prefix}", "parquet", check, s3.endpoint)

    ids = pq.read_table(prefix, filesystem=s3.files(), columns=["id"])["id"].to_pylist()
    assert Counter(ids) == Counter(map(str, range(30_000)))


def test_a_store_that_is_silent_costs_a_timeout_and_gets_everything_later(
    s3: "S3Server",
) -> None:
    prefix = f"{_BUCKET}/silent"
    events = [event for number in range(50) for event in Capture().events(exchange(number))]

    async def run() -> tuple[Delivery, Delivery]:
        sink = FileSink(f"s3://{prefix}", s3=s3.settings, timeout_s=1)
        await sink.send(events[:1])
        s3.process.signal(signal.SIGSTOP)
        silent = await sink.send(events)
        s3.process.signal(signal.SIGCONT)
        delivery = Delivery(n_taken=0)
        async with asyncio.timeout(_PATIENCE_S):
            while not delivery.n_taken:
                delivery = await sink.send(events)
        await sink.close()
        return silent, delivery

    assert uvloop.run(run()) == (
        Delivery(n_taken=0, failure="timeout"),
        Delivery(n_taken=100),
    )
    assert pq.read_table(prefix, filesystem=s3.files()).num_rows == 100


# Inside a namespace of its own it may mount a small disk.
_FULL_DISK = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.services import test_sinks_files as here

asyncio.run(here.fill_a_disk(Path(sys.argv[1])))
"""


async def fill_a_disk(folder: Path) -> None:
    """Send more than a disk has room for, then make room."""
    events, ballast = folder / "disk" / "events", folder / "disk" / "ballast"
    ballast.write_bytes(bytes(700_000))
    spool = SpoolFolder(folder=folder / "spool")
    emitter = Emitter.of(FileSink(events), spool=spool, limits=_LIMITS)
    await emitter.start()
    for number in range(400):
        emitter.offer(exchange(number, body=os.urandom(1000)))
        await asyncio.sleep(0)
    await until(lambda: accounts_of(emitter).sink_errors.get("disk_full", 0) > 2)
    pq.read_table(events)
    ballast.unlink()
    await until(lambda: not accounts_of(emitter).pending)
    await emitter.flush()
    assert accounts_of(emitter).sent == 800
    table = pq.read_table(events)
    assert (table.num_rows, len(set(table["id"].to_pylist()))) == (800, 400)
    assert set(accounts_of(emitter).sink_errors) == {"disk_full"}


def test_a_full_disk_is_waited_out_and_shows_no_half_file(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    (tmp_path / "disk").mkdir()
    mounted = f'mount -t tmpfs -o size=1m none {tmp_path}/disk && exec "$@"'
    command = [str(unshare), "--user", "--map-root-user", "--mount", "sh", "-c", mounted, "sh"]
    if unshare is None or subprocess.run([*command, "true"], check=False).returncode:
        if os.environ.get("CI") == "true":
            pytest.fail("expected unshare with --user --mount to be allowed, got a refusal")
        pytest.skip("no small disk can be mounted here")
    root = Path(__file__).parents[2]

    done = subprocess.run(
        [*command, sys.executable, "-c", _FULL_DISK, str(tmp_path), str(root)],
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S * 2,
        check=False,
    )

    assert done.returncode == 0, done.stderr
