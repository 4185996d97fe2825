import asyncio
import contextlib
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from tests.adapters.captured_events import captured

from sidelight.adapters import (
    FILE_LIMITS,
    FileFormat,
    FileSink,
    S3Settings,
    SinkError,
    _sink_files_s3,
)
from sidelight.adapters._sink_files_errors import reason_of
from sidelight.logger import CapturedEvent, Delivery

DAY = "namespace=prod/deployment=flights/date=2026-01-31"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files close however long the machine takes for it."""
    monkeypatch.setattr("sidelight.adapters._sink_files._CLOSE_S", 100.0)


def several(n_events: int, **attributes: Any) -> list[CapturedEvent]:
    return [captured(id=str(number), **attributes) for number in range(n_events)]


def used(sink: FileSink, use: Callable[[FileSink], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        try:
            return await use(sink)
        finally:
            await sink.close()

    return asyncio.run(run())


def sent(sink: FileSink, *batches: Sequence[CapturedEvent]) -> list[Delivery]:
    async def use(sink: FileSink) -> list[Delivery]:
        return [await sink.send(batch) for batch in batches]

    found: list[Delivery] = used(sink, use)
    return found


def ids(folder: Path) -> list[str]:
    return sorted(
        json.loads(line)["id"]
        for file in folder.rglob("*.jsonl")
        for line in file.read_text().splitlines()
    )


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("file_format", ["parquet", "jsonl", "jsonl.gz"])
def test_duckdb_reads_every_event_with_the_columns_of_its_folder(
    tmp_path: Path, file_format: FileFormat
) -> None:
    events = [
        captured(id=f"{name}{day}", inferenceservicename=name, time=f"2026-01-{day}T00:00:00.5Z")
        for name in ("a", "b/../c")
        for day in (30, 31)
    ]
    reader = "read_parquet" if file_format == "parquet" else "read_json"

    assert sent(FileSink(tmp_path, file_format=file_format), events) == [Delivery(n_taken=4)]

    found = (
        duckdb.connect()
        .execute(
            f"select id, namespace, deployment, date::text from "
            f"{reader}('{tmp_path}/**/*.{file_format}', hive_partitioning = true) order by id"
        )
        .fetchall()
    )
    assert found == [
        ("a30", "prod", "a", "2026-01-30"),
        ("a31", "prod", "a", "2026-01-31"),
        ("b/../c30", "prod", "b/../c", "2026-01-30"),
        ("b/../c31", "prod", "b/../c", "2026-01-31"),
    ]


def test_arrow_reads_the_folder_as_one_table_also_with_names_that_look_like_numbers(
    tmp_path: Path,
) -> None:
    events = [captured(id="1", namespace="1"), captured(id="2"), captured(id="3", time=None)]

    sent(FileSink(tmp_path), events)

    partitioned = ds.dataset(tmp_path, partitioning="hive")
    assert sorted(partitioned.to_table().column("id").to_pylist()) == ["1", "2", "3"]
    assert pq.read_table(tmp_path).num_rows == 3


def test_a_repeated_delivery_replaces_what_the_first_has_left_also_when_it_has_grown(
    tmp_path: Path,
) -> None:
    events = several(5)

    for n_events in (3, 5, 2):
        sent(FileSink(tmp_path, file_format="jsonl"), events[:n_events])

        assert ids(tmp_path) == [str(number) for number in range(n_events)]
    assert len(files(tmp_path)) == 1


def test_a_delivery_of_which_one_file_fails_is_not_taken_at_all_and_continues_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = FileSink(tmp_path, file_format="jsonl")
    events = [
        captured(id=str(number), inferenceservicename=name)
        for number, name in enumerate(["a", "b", "a", "c"])
    ]
    write, written = sink._files.write, list[str]()

    def failing(path: str, fill: Callable[[BinaryIO], None]) -> None:
        if "deployment=b" in path and not any("deployment=b" in name for name in written):
            written.append(path)
            raise OSError(errno.ENOSPC, "full")
        written.append(path)
        write(path, fill)

    monkeypatch.setattr(sink._files, "write", failing)

    assert sent(sink, events, events) == [
        Delivery(n_taken=0, failure="disk_full"),
        Delivery(n_taken=4),
    ]
    assert [path.split("/")[1][-1] for path in written] == ["a", "b", "b", "c"]
    assert ids(tmp_path) == ["0", "1", "2", "3"]


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    sink = FileSink(tmp_path, file_format="jsonl")
    seen = list[list[Path]]()

    def fill(file: BinaryIO) -> None:
        file.write(b"half")
        file.flush()
        seen.append(list(tmp_path.rglob("*.jsonl")))
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        sink._files.write(f"{DAY}/x.jsonl", fill)

    assert seen == [[]]
    assert files(tmp_path) == [name for name in files(tmp_path) if name.endswith(".lock")]


@contextlib.contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("file_format", ["parquet", "jsonl", "jsonl.gz"])
def test_a_disk_that_takes_no_more_leaves_nothing_and_is_told(
    tmp_path: Path, file_format: FileFormat
) -> None:
    sink = FileSink(tmp_path, file_format=file_format)
    events = [captured(os.urandom(1000), id=str(number)) for number in range(40)]

    async def use(sink: FileSink) -> tuple[Delivery, list[str], Delivery]:
        with files_of_at_most(4096):
            failed = await sink.send(events)
        left = [name for name in files(tmp_path) if not name.endswith(".lock")]
        return failed, left, await sink.send(events)

    assert used(sink, use) == (
        Delivery(n_taken=0, failure="disk_full"),
        [],
        Delivery(n_taken=40),
    )


def test_what_cannot_be_encoded_is_refused_so_that_the_bad_one_is_found(tmp_path: Path) -> None:
    bad = CapturedEvent(b'{"id":1,"specversion":"1.0"', b"")

    assert sent(FileSink(tmp_path), [captured(), bad], [bad], [captured()]) == [
        Delivery(n_taken=0, n_refused=2, failure="unencodable"),
        Delivery(n_taken=0, n_refused=1, failure="unencodable"),
        Delivery(n_taken=1),
    ]


def test_unfinished_files_of_a_kill_are_removed_and_those_of_the_living_are_not(
    tmp_path: Path,
) -> None:
    script = (
        "import os, signal, sys\n"
        "from sidelight.adapters import FileSink\n"
        "sink = FileSink(sys.argv[1])\n"
        "def fill(file):\n"
        "    file.write(b'x' * 100)\n"
        "    file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "sink._files.write('a/b.jsonl', fill)\n"
    )
    living = FileSink(tmp_path)
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [name for name in files(tmp_path) if name.endswith(".tmp")]
    inside = list[list[str]]()

    def fill(_: BinaryIO) -> None:
        FileSink(tmp_path)
        inside.append([name for name in files(tmp_path) if name.endswith(".tmp")])

    living._files.write("a/c.jsonl", fill)

    assert len(inside[0]) == 1
    assert [name for name in files(tmp_path) if name.endswith("jsonl")] == ["a/c.jsonl"]


def test_a_folder_that_was_removed_meanwhile_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    sink = FileSink(folder, file_format="jsonl")
    for path in (folder / ".writing").iterdir():
        path.unlink()
    (folder / ".writing").rmdir()
    folder.rmdir()

    assert sent(sink, several(2)) == [Delivery(n_taken=2)]
    assert ids(folder) == ["0", "1"]


def test_a_new_folder_is_for_its_owner_only(tmp_path: Path) -> None:
    FileSink(tmp_path / "events")

    assert (tmp_path / "events").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_used_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(SinkError, match="expected one to write in"):
        FileSink(tmp_path / "file" / "events")


def test_a_delivery_ends_with_its_timeout_and_the_next_one_is_sound(tmp_path: Path) -> None:
    sink = FileSink(tmp_path, file_format="jsonl", timeout_s=0.05)
    free = threading.Event()
    write = sink._files.write

    def slow(path: str, fill: Callable[[BinaryIO], None]) -> None:
        free.wait(100)
        write(path, fill)

    sink._files.write = slow  # type: ignore[method-assign] # a disk that does not answer

    async def use(sink: FileSink) -> tuple[Delivery, Delivery]:
        first = await sink.send(several(3))
        free.set()
        sink._timeout_s = 100
        return first, await sink.send(several(3))

    assert used(sink, use) == (Delivery(n_taken=0, failure="timeout"), Delivery(n_taken=3))
    assert ids(tmp_path) == ["0", "1", "2"]


def test_a_cancelled_delivery_stops_between_events(tmp_path: Path) -> None:
    sink = FileSink(tmp_path, file_format="jsonl")
    begun, go_on = threading.Event(), threading.Event()
    write = sink._files.write

    def waiting(path: str, fill: Callable[[BinaryIO], None]) -> None:
        begun.set()
        go_on.wait(100)
        write(path, fill)

    sink._files.write = waiting  # type: ignore[method-assign] # so that it is cancelled here

    async def use(sink: FileSink) -> Delivery:
        task = asyncio.create_task(sink.send(several(1000)))
        await asyncio.to_thread(begun.wait, 100)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        return await sink.send(several(2))

    assert used(sink, use) == Delivery(n_taken=2)
    assert ids(tmp_path) == ["0", "1"]


def test_a_sink_can_be_closed_twice_and_used_afterwards(tmp_path: Path) -> None:
    sink = FileSink(tmp_path, file_format="jsonl")

    assert [sent(sink, several(n_events)) for n_events in (0, 2)] == [
        [Delivery(n_taken=0)],
        [Delivery(n_taken=2)],
    ]
    assert files(tmp_path / ".writing") == []


def test_files_that_do_not_close_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sidelight.adapters._sink_files._CLOSE_S", 0.01)
    sink = FileSink(tmp_path)
    free = threading.Event()
    sink._files.close = lambda: free.wait(100)  # type: ignore[assignment, method-assign] # as a disk

    asyncio.run(sink.close())
    free.set()

    assert [record.message for record in caplog.records] == ["the files did not close in time"]


def test_a_store_with_the_usual_credentials_is_looked_for_where_the_region_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[dict[str, Any]] = []

    def make(**options: Any) -> None:
        made.append(options)
        if "allow_delayed_open" in options:
            raise TypeError("an older pyarrow")

    monkeypatch.setattr(_sink_files_s3, "S3FileSystem", make)

    _sink_files_s3.connect_s3(S3Settings(region="eu-central-1"))

    assert len(made) == 2
    assert made[1]["region"] == "eu-central-1"
    assert not {"access_key", "endpoint_override", "allow_delayed_open"} & set(made[1])


def test_nothing_to_send_is_taken(tmp_path: Path) -> None:
    assert sent(FileSink(tmp_path), []) == [Delivery(n_taken=0)]


def test_the_limits_make_few_large_files() -> None:
    assert FILE_LIMITS.batch_events >= 10_000
    assert FILE_LIMITS.linger_s >= 30


@pytest.mark.parametrize(
    "make",
    [
        lambda: FileSink("x", file_format="csv"),  # type: ignore[arg-type] # what is tested
        lambda: FileSink("x", timeout_s=0),
        lambda: FileSink("s3://"),
        lambda: FileSink("s3://bucket/../other"),
        lambda: S3Settings(endpoint="ftp://host"),
        lambda: S3Settings(endpoint="http://"),
        lambda: S3Settings(access_key="a"),
        lambda: S3Settings(connect_timeout_s=0),
    ],
)
def test_settings_that_cannot_be_used_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        make()


def test_the_keys_of_a_bucket_are_in_no_text() -> None:
    settings = S3Settings(access_key="AKID", secret_key="hidden", session_token="token")

    assert not [word for word in ("AKID", "hidden", "token=") if word in repr(settings)]


def test_a_store_that_cannot_be_reached_is_told() -> None:
    nobody = S3Settings(
        endpoint="http://127.0.0.1:1", access_key="a", secret_key="b", connect_timeout_s=100.0
    )

    assert sent(FileSink("s3://bucket/events", s3=nobody, timeout_s=100), several(2)) == [
        Delivery(n_taken=0, failure="refused")
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk_full"),
        (PermissionError(errno.EACCES, "Permission denied"), "denied"),
        (OSError(errno.EROFS, "Read-only file system"), "denied"),
        (OSError("AWS Error ACCESS_DENIED during PutObject operation: Access Denied"), "denied"),
        (OSError("AWS Error NO_SUCH_BUCKET during PutObject operation: none"), "no_bucket"),
        (OSError("AWS Error SLOW_DOWN during PutObject operation: slower"), "throttled"),
        (OSError("AWS Error NETWORK_CONNECTION during PutObject: curlCode: 28, late"), "timeout"),
        (OSError("AWS Error NETWORK_CONNECTION during PutObject: curlCode: 99, odd"), "reset"),
        (OSError("AWS Error NETWORK_CONNECTION during PutObject"), "reset"),
        (OSError("AWS Error UNKNOWN (HTTP status 503) during PutObject"), "status_5xx"),
        (OSError("something new"), "unwritable"),
    ],
)
def test_every_failure_has_a_word_of_a_bounded_set(error: OSError, reason: str) -> None:
    assert reason_of(error) == reason
