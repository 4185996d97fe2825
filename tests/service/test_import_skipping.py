"""Files with a bad line: refused whole, or read without it, and named in any case."""

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from sidelight.adapters._sink_files_parquet import write_parquet
from sidelight.logger import CapturedEvent
from sidelight.service import _collector_client
from sidelight.service._cli import app
from sidelight.service._collector_client import CollectorClient
from sidelight.service._import import import_files
from sidelight.service._import_tables import Mapped
from sidelight.service.errors import BadRequest

MAPPED = Mapped(deployment="prod/flights")
BAD = b'{"broken'


def _capture(number: int) -> bytes:
    side = {"observedContentType": "text/csv", "data": "1,2", "encoding": "CSV"}
    captured = {"endpointInput": side, "endpointOutput": side}
    return json.dumps(
        {"captureData": captured, "eventMetadata": {"eventId": f"e{number}"}}
    ).encode()


def _blob(number: int) -> bytes:
    kind = "org.kubeflow.serving.inference.request"
    return json.dumps({"bytes": "e30=", "reqType": kind, "id": f"e{number}"}).encode()


def _event(number: int) -> bytes:
    event = {"specversion": "1.0", "id": f"e{number}", "source": "/s", "type": "t", "data": {}}
    return json.dumps(event).encode()


class Collector:
    """Keeps the ids of the events that it was sent."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.client = CollectorClient("http://collector:1", transport=self.transport())

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._take)

    def _take(self, request: httpx.Request) -> httpx.Response:
        for event in json.loads(request.content):
            if event["id"] not in self.ids:
                self.ids.append(event["id"])
        return httpx.Response(200)


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    with collector.client:
        yield collector


@pytest.mark.parametrize("line", [_capture, _blob, _event])
def test_a_bad_line_is_named_and_nothing_of_its_file_is_sent(
    tmp_path: Path, collector: Collector, line: Any
) -> None:
    path = tmp_path / "lines.jsonl"
    # More good ones than are sent at once.
    path.write_bytes(b"\n".join([*(line(number) for number in range(600)), BAD]))

    with pytest.raises(BadRequest, match=r"lines\.jsonl: line 601"):
        import_files([path], collector.client)

    assert collector.ids == []


@pytest.mark.parametrize("line", [_capture, _blob, _event])
def test_bad_lines_are_left_out_counted_and_named_where_that_is_asked(
    tmp_path: Path, collector: Collector, capsys: pytest.CaptureFixture[str], line: Any
) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b"\n".join([line(0), BAD, b"", line(1), b"[]"]))

    report = import_files([path], collector.client, skip_bad=True)

    assert collector.ids == ["e0", "e1"]
    assert (report.files, report.skipped) == (1, 2)
    named = capsys.readouterr().err.splitlines()
    assert [text.partition(": expected")[0] for text in named] == [
        f"sidelight: skipped: {path}: line 2",
        f"sidelight: skipped: {path}: line 5",
    ]
    assert "broken" not in "".join(named)


def test_an_event_lacks_nothing_that_the_collector_asks_for(
    tmp_path: Path, collector: Collector
) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(_event(0) + b'\n{"specversion": "1.0", "id": "e1", "type": "t"}\n')

    with pytest.raises(BadRequest, match="line 2 is no CloudEvent: it has no source"):
        import_files([path], collector.client)


def test_nothing_of_a_file_that_gzip_broke_off_is_sent(
    tmp_path: Path, collector: Collector
) -> None:
    path = tmp_path / "lines.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(map(_event, range(5000))))[:-4])

    with pytest.raises(BadRequest, match="gzip"):
        import_files([path], collector.client)
    report = import_files([path], collector.client, skip_bad=True)

    assert (collector.ids, report.files, report.skipped) == ([], 0, 1)


def test_files_of_which_nothing_can_be_read_are_left_out_whole(
    tmp_path: Path, collector: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    table, blob, seldon, good = (tmp_path / name for name in ("t", "b", "s", "g"))
    table.write_bytes(b'{"a": 1}\n' + BAD)
    blob.write_bytes(b'{"reqType": "org')
    hit = {"_id": "x", "_source": {"RequestId": "x"}}
    seldon.write_bytes(json.dumps(hit).encode() + b"\n" + BAD)
    good.write_bytes(_event(0))

    paths = [table, blob, seldon, good]
    report = import_files(paths, collector.client, mapped=MAPPED, skip_bad=True)

    assert (report.files, report.skipped, collector.ids) == (1, 3, ["e0"])
    named = capsys.readouterr().err
    assert [f"{path}: " in named for path in paths] == [True, True, True, False]


def test_damaged_text_of_parquet_is_told(
    tmp_path: Path, collector: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.parquet"
    damaged = pa.array([b"good", b"\xff"]).view(pa.string())
    pq.write_table(pa.table({"x": damaged}), path)

    with pytest.raises(BadRequest, match=r"rows\.parquet: expected text in UTF-8"):
        import_files([path], collector.client, mapped=MAPPED)
    assert import_files([path], collector.client, mapped=MAPPED, skip_bad=True).skipped == 1
    assert "expected text in UTF-8" in capsys.readouterr().err
    assert collector.ids == []


def test_what_was_asked_wrongly_is_no_bad_line(tmp_path: Path, collector: Collector) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n')

    with pytest.raises(BadRequest, match="cannot be read"):
        import_files([tmp_path / "none"], collector.client, skip_bad=True)
    with pytest.raises(BadRequest, match="--deployment"):
        import_files([path], collector.client, skip_bad=True)
    mapped = Mapped(deployment="a/b", outputs=("p",))
    with pytest.raises(BadRequest, match="column p"):
        import_files([path], collector.client, mapped=mapped, skip_bad=True)


def test_a_record_is_known_by_what_stands_behind_a_long_payload(
    tmp_path: Path, collector: Collector
) -> None:
    path = tmp_path / "blob.json"
    path.write_bytes(_blob(0).replace(b"e30=", b"e30g" * 50_000 + b"e30="))

    assert import_files([path], collector.client).events == 1


def test_files_of_our_own_sink_are_known_by_their_columns(
    tmp_path: Path, collector: Collector
) -> None:
    given = b'{"specversion":"1.0","source":"/s","type":"t","id":"e%d"'
    file = io.BytesIO()
    write_parquet([CapturedEvent(given % number, b"{}") for number in range(300)], file)
    plain, zipped = tmp_path / "events.parquet", tmp_path / "events.gz"
    plain.write_bytes(file.getvalue())
    zipped.write_bytes(gzip.compress(file.getvalue()))

    report = import_files([plain, zipped], collector.client)

    assert (report.events, collector.ids) == (600, [f"e{number}" for number in range(300)])


def test_the_command_ends_with_1_when_something_was_left_out(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def client(*args: Any, **options: Any) -> CollectorClient:
        return CollectorClient(*args, **options, transport=collector.transport())

    path = tmp_path / "lines.jsonl"
    path.write_bytes(_event(0) + b"\n")
    monkeypatch.setattr(_collector_client, "CollectorClient", client)

    def run(*options: str) -> tuple[int, dict[str, int]]:
        done = CliRunner().invoke(app, ["import", str(path), "--to", "http://c:1", *options])
        return done.exit_code, json.loads(done.stdout or "{}")

    sent = {"files": 1, "events": 1, "refused": 0}
    assert run() == (0, sent)
    assert run("--skip-bad") == (0, {**sent, "skipped": 0})
    path.write_bytes(_event(0) + b"\n" + BAD)
    assert run() == (2, {})
    assert run("--skip-bad") == (1, {**sent, "skipped": 1})
