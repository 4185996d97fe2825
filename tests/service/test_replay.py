"""Replay and import: what comes out is what a service would have made of it."""

import gzip
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from sidelight.adapters import EmbeddedDocuments, Inferences
from sidelight.logger import verify
from sidelight.logger._segments import SegmentReader, SegmentWriter
from sidelight.service._access_log import AccessLog
from sidelight.service._cli import app
from sidelight.service._collector_client import CollectorClient
from sidelight.service._import import import_files
from sidelight.service._import_csv import csv_rows
from sidelight.service._import_tables import Mapped
from sidelight.service._replay import note_replay, replay_into, replay_to
from sidelight.service._settings import Settings
from sidelight.service.errors import BadRequest, ConfigurationError, ServiceError


class Collector:
    """A collector without a socket: keeps requests in the journal of a folder."""

    def __init__(self, folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.statuses: list[int] = []
        self.heads: list[httpx.Request] = []
        self.client = CollectorClient(
            "http://collector:1", patience_s=100, transport=httpx.MockTransport(self._take)
        )
        monkeypatch.setattr("time.sleep", lambda _: None)

    def _take(self, request: httpx.Request) -> httpx.Response:
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 0:
            raise httpx.ConnectError("no")
        if status == 200:
            self.heads.append(request)
            self.folder.put(dict(request.headers), request.content, path=request.url.path)
        return httpx.Response(status, headers={"retry-after": "1"})


@pytest.fixture
def collector(make_folder: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector(make_folder(), monkeypatch)
    yield collector
    collector.client._client.close()


def _stored(data: Path) -> list[dict[str, Any]]:
    """Return all inferences, without the places of their raw halves."""
    documents = EmbeddedDocuments(data)
    try:
        items, following = Inferences(data, documents).find(limit=1000, order="time")
    finally:
        documents.close()
    assert following is None
    found = [item.to_json() for item in items]
    for item in found:
        del item["raw"]
    return sorted(found, key=lambda item: str(item["id"]))


def _traffic(folder: Any) -> None:
    for number in range(40):
        folder.ask([[float(number), "f"]], version="v1")
    folder.half("request", b"no JSON", request_id="opaque")
    folder.half("response", {"outputs": []}, request_id="alone", statuscode="503")
    folder.put({"content-type": "application/cloudevents-batch+json"}, b'[{"x": 1}, {}]')
    folder.ask([[1.0, "f"]], request_id="r000003")  # again, with other bytes
    folder.work()


def test_a_fresh_folder_gets_the_same_inferences(folder: Any, tmp_path: Path) -> None:
    _traffic(folder)
    into = tmp_path / "fresh"
    report = replay_into(folder.data, Settings(data=into))
    assert report.records == SegmentReader(folder.data).end()
    assert (report.refused, report.damaged) == (0, 0)
    assert _stored(into) == _stored(folder.data)
    assert len(_stored(into)) == 40
    assert verify(into).ok
    old, new = SegmentReader(folder.data), SegmentReader(into)
    kept = [reader.read(0, max_records=1000, max_bytes=1 << 30) for reader in (old, new)]
    assert [(item.received_ns, item.head, item.body) for item in kept[0]] == [
        (item.received_ns, item.head, item.body) for item in kept[1]
    ]
    old.close()
    new.close()


def test_a_half_that_waited_too_long_is_an_orphan_of_the_fresh_folder(tmp_path: Path) -> None:
    old = SegmentWriter(tmp_path / "old", clock=lambda: 1_700_000_000_000_000_000)
    head = (
        b"POST / HTTP/1.1\r\nce-id: r\r\nce-source: /s\r\nce-specversion: 1.0\r\n"
        b"ce-type: org.kubeflow.serving.inference.request\r\nce-namespace: prod\r\n"
        b"ce-inferenceservicename: flights\r\ncontent-type: application/json\r\n\r\n"
    )
    old.write(head, b'{"instances": [[1.0]]}').result()
    old.close()

    replay_into(tmp_path / "old", Settings(data=tmp_path / "new"))

    (item,) = _stored(tmp_path / "new")
    assert (item["request_id"], item["orphan"]) == ("r", "request")


def test_a_folder_that_holds_something_is_no_place_for_a_replay(folder: Any) -> None:
    _traffic(folder)
    with pytest.raises(ConfigurationError, match="fresh folder"):
        replay_into(folder.data, Settings(data=folder.data))


def test_a_folder_of_a_newer_version_is_not_replayed(folder: Any, tmp_path: Path) -> None:
    folder.ask([[1, "f"]])
    (folder.data / "format").write_text("999\n")
    into = tmp_path / "into"

    done = CliRunner().invoke(app, ["replay", "--data", str(folder.data), "--into", str(into)])

    assert done.exit_code == 2
    assert "got 999" in done.stderr
    assert not into.exists()


def test_a_collector_that_fails_for_a_while_gets_everything_once_and_in_order(
    folder: Any, collector: Collector
) -> None:
    _traffic(folder)
    collector.statuses = [200, 503, 0, 429, 500, 200, 404]
    report = replay_to(folder.data, collector.client)
    assert report.records == SegmentReader(folder.data).end()
    collector.folder.work()
    assert _stored(collector.folder.data) == _stored(folder.data)
    replay_to(folder.data, collector.client)
    collector.folder.work()
    assert _stored(collector.folder.data) == _stored(folder.data)


def test_a_replay_to_the_collector_of_the_same_folder_ends(collector: Collector) -> None:
    _traffic(collector.folder)
    n_records = SegmentReader(collector.folder.data).end()

    report = replay_to(collector.folder.data, collector.client)

    assert report.records == n_records
    assert SegmentReader(collector.folder.data).end() == 2 * n_records


def test_what_is_refused_is_counted_and_a_dead_collector_is_said(
    folder: Any, collector: Collector
) -> None:
    _traffic(folder)
    collector.statuses = [400, 415]
    assert replay_to(folder.data, collector.client).refused == 2
    collector.statuses = [401]
    with pytest.raises(ServiceError, match="token"):
        replay_to(folder.data, collector.client)
    collector.client._patience_s = 0.0
    collector.statuses = [0] * 100_000
    with pytest.raises(ServiceError, match="cannot be reached"):
        replay_to(folder.data, collector.client)


def test_a_senders_token_and_connection_are_not_sent_again(
    folder: Any, collector: Collector
) -> None:
    headers = {"ce-id": "1", "authorization": "Bearer x", "connection": "close", "host": "old"}
    folder.put(headers, b"{}", path="/events/sl_0123456789ab")
    replay_to(folder.data, collector.client)
    (request,) = collector.heads
    assert request.url.path == "/events"
    assert request.headers["host"] == "collector:1"
    assert "authorization" not in request.headers
    assert request.headers["ce-id"] == "1"


ROWS: list[dict[str, Any]] = [
    {"id": "a", "at": "2013-01-01T00:00:00Z", "age": 30, "job": "x", "p": 0.5, "late": 1, "v": "7"},
    {"id": "b", "at": "2013-01-02T00:00:00Z", "age": 41, "job": "y", "p": None, "late": None},
    {"id": "c", "at": None, "age": None, "job": "z", "p": 0.25, "late": 0, "v": "8"},
]
MAPPED = Mapped(
    deployment="prod/flights",
    outputs=("p",),
    labels=("late",),
    request_id="id",
    time="at",
    version="v",
)


def _write(path: Path) -> Path:
    table = pa.Table.from_pylist([{"v": None, **row} for row in ROWS])
    match path.suffix:
        case ".parquet":
            pq.write_table(table, path)
        case ".csv":
            pa_csv.write_csv(table, path)
        case _:
            lines = [json.dumps({"v": None, **row}) for row in ROWS]
            path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_table_becomes_inferences_with_labels(
    tmp_path: Path, collector: Collector, suffix: str
) -> None:
    path = _write(tmp_path / f"rows{suffix}")
    for _ in range(2):  # a second import changes nothing
        report = import_files([path], collector.client, mapped=MAPPED)
        assert (report.files, report.refused) == (1, 0)
        collector.folder.work()
    stored = {item["request_id"]: item for item in _stored(collector.folder.data)}
    assert stored.keys() == {"a", "b", "c"}
    assert stored["a"]["version"] == "7"
    assert stored["a"]["time"].startswith("2013-01-01T00:00:00")
    (row,) = stored["a"]["rows"]
    assert row["features"] == {"age": 30, "job": "x"}
    assert row["outputs"] == {"p": 0.5}
    assert row["labels"] == {"late": 1}
    assert stored["b"]["rows"][0]["outputs"] == {"p": None}
    assert stored["c"]["rows"][0]["features"] == {"age": None, "job": "z"}


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_table_that_gzip_has_made_smaller_is_the_same_table(
    tmp_path: Path, collector: Collector, suffix: str
) -> None:
    path = _write(tmp_path / f"rows{suffix}")
    small = tmp_path / "rows.gz"
    small.write_bytes(gzip.compress(path.read_bytes()))
    mapped = Mapped(deployment="prod/flights", outputs=("p",))

    import_files([path, small], collector.client, mapped=mapped)

    collector.folder.work()
    assert len(_stored(collector.folder.data)) == 3
    small.write_bytes(small.read_bytes()[:-20])
    with pytest.raises(BadRequest, match="gzip"):
        import_files([small], collector.client, mapped=mapped, format="jsonl")
    with pytest.raises(BadRequest, match=r"rows\.gz"):
        import_files([small], collector.client, mapped=mapped, format="csv")


def test_captures_that_gzip_has_made_smaller_are_known_by_their_content(
    tmp_path: Path, collector: Collector
) -> None:
    sample = json.loads(Path("tests/wire/sm03_data_capture_line.json").read_text())
    path = tmp_path / "30-45.jsonl.gz"
    path.write_bytes(gzip.compress(sample["object"]["body"]["text"].encode()))

    assert import_files([path], collector.client).events == 2


def test_a_column_of_csv_is_what_all_its_cells_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    n_whole = 400_000
    lines = ["n,m,text,flag", *["1,2,3,true"] * 3, *['1,2,"a\n""b""",'] * 1]
    path.write_text("\n".join(lines) + "\n" + "1,2,,\n" * n_whole + "1.5,x,,false\n")

    rows = list(csv_rows(path))

    assert len(rows) == n_whole + 5
    assert rows[0] == {"n": 1.0, "m": "2", "text": "3", "flag": True}
    assert rows[3] == {"n": 1.0, "m": "2", "text": 'a\n"b"', "flag": None}
    assert rows[4] == {"n": 1.0, "m": "2", "text": None, "flag": None}
    assert rows[-1] == {"n": 1.5, "m": "x", "text": None, "flag": False}


def test_an_exported_table_is_imported_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('a,b\r\n"","NA"\r\n,NA\r\n')

    assert list(csv_rows(path)) == [{"a": "", "b": "NA"}, {"a": None, "b": None}]


def test_rows_need_not_have_all_columns_and_a_column_has_one_type(
    tmp_path: Path, collector: Collector
) -> None:
    path = tmp_path / "rows.jsonl"
    rows: list[dict[str, Any]] = [
        {"id": "a", "n": 1},
        {"id": "b", "n": 2.5, "s": "x"},
        {"id": "c", "list": [1, None]},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))

    mapped = Mapped(deployment="prod/flights", outputs=("p",), request_id="id", time="at")
    with pytest.raises(BadRequest, match="column p"):
        import_files([path], collector.client, mapped=mapped)
    path.write_text("\n".join(json.dumps({**row, "at": None, "p": 1}) for row in rows))
    import_files([path], collector.client, mapped=mapped)

    collector.folder.work()
    stored = {item["request_id"]: item for item in _stored(collector.folder.data)}
    found = {name: item["rows"][0]["features"] for name, item in stored.items()}
    assert found == {
        "a": {"n": 1.0, "s": None, "list": None},
        "b": {"n": 2.5, "s": "x", "list": None},
        "c": {"n": None, "s": None, "list": "[1,null]"},
    }


def test_values_of_parquet_keep_what_they_are(tmp_path: Path, collector: Collector) -> None:
    path = tmp_path / "rows.parquet"
    row = {"price": Decimal("1.25"), "n": Decimal(3), "raw": b"\xff", "said": b"yes", "of": [1.5]}
    pq.write_table(pa.Table.from_pylist([{**row, "s": {"a": [None]}, "p": 1}]), path)

    mapped = Mapped(deployment="prod/flights", outputs=("p",))
    import_files([path], collector.client, mapped=mapped)

    collector.folder.work()
    (item,) = _stored(collector.folder.data)
    assert item["rows"][0]["features"] == {
        "price": 1.25,
        "n": 3,
        "raw": "/w==",
        "said": "yes",
        "of": "[1.5]",
        "s": '{"a":[null]}',
    }


def test_nothing_of_a_table_that_is_wrong_somewhere_is_sent(
    tmp_path: Path, collector: Collector
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n' * 1000 + "{broken\n")

    with pytest.raises(BadRequest, match="line 1001"):
        import_files([path], collector.client, mapped=Mapped(deployment="prod/flights"))

    assert collector.heads == []


def test_ids_of_a_table_without_any_derive_from_its_bytes(
    tmp_path: Path, collector: Collector
) -> None:
    path = _write(tmp_path / "rows.parquet")
    mapped = Mapped(deployment="prod/flights", features=("age",), outputs=("p",))
    import_files([path, path], collector.client, mapped=mapped)
    collector.folder.work()
    assert len(_stored(collector.folder.data)) == 3


def test_events_of_a_file_are_sent_byte_for_byte(tmp_path: Path, collector: Collector) -> None:
    line = (
        '{"specversion":"1.0","id":"1","source":"/x","type":"org.kubeflow.serving.inference.request"'
        ',"namespace":"n","inferenceservicename":"m","data":{"instances":[[1.0, 2.50]]}}'
    )
    path = tmp_path / "events.jsonl"
    path.write_text(line + "\n\n" + line.replace('"1"', '"2"') + "\n")
    assert import_files([path], collector.client).events == 2
    (request,) = collector.heads
    assert line.encode() in request.content


@pytest.mark.parametrize(
    ("sample", "count"),
    [("ks14_blob_json_single", 1), ("ks16_blob_csv", 1), ("sm03_data_capture_line", 2)],
)
def test_files_of_other_loggers_are_known_by_their_content(
    tmp_path: Path, collector: Collector, sample: str, count: int
) -> None:
    text = json.loads(Path(f"tests/wire/{sample}.json").read_text())["object"]["body"]["text"]
    path = tmp_path / "blob"
    path.write_text(text)
    assert import_files([path], collector.client).events == count
    collector.folder.work()
    assert collector.folder.counter("quarantined_events_total") == 0


def test_documents_of_seldons_logger_are_known_by_their_content(
    tmp_path: Path, collector: Collector
) -> None:
    stored = json.loads(Path("tests/wire/es03_metadata_enriched.json").read_text())["elasticsearch"]
    path = tmp_path / "hits.jsonl"
    path.write_text(json.dumps({"_id": stored["id"], "_source": stored["doc"]}))

    assert import_files([path], collector.client).events == 2
    collector.folder.work()
    (found,) = _stored(collector.folder.data)
    assert found["deployment"] == "seldon/income"
    assert found["rows"][0]["outputs"] == {"t:0": 0.14, "t:1": 0.86}


@pytest.mark.parametrize(
    ("name", "content", "mapped", "said"),
    [
        ("x.jsonl", b"{1}\n", MAPPED, "line 1"),
        ("x.jsonl", b'{"a": 1}\n', None, "--deployment"),
        ("x.jsonl", b'{"a": 1}\n', MAPPED, "column p"),
        ("x.csv", b"a,b\n1,2,3\n", MAPPED, "CSV"),
        ("x.csv", b"p,b,b\n1,2,3\n", MAPPED, "column 'b'"),
        ("x.csv", b"", MAPPED, "CSV"),
        ("x.parquet", b"PAR1garbage", MAPPED, "x.parquet"),
        ("x.jsonl", b'{"specversion": "1.0"}\n', None, "no CloudEvent"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named(
    tmp_path: Path, collector: Collector, name: str, content: bytes, mapped: Any, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadRequest, match=said) as raised:
        import_files([path], collector.client, mapped=mapped)
    assert str(path) in str(raised.value)
    with pytest.raises(BadRequest, match="cannot be read"):
        import_files([tmp_path / "missing"], collector.client, mapped=mapped)


def test_a_column_has_one_use() -> None:
    with pytest.raises(ConfigurationError, match="column p"):
        Mapped(deployment="a/b", outputs=("p",), labels=("p",))
    with pytest.raises(ConfigurationError, match="NS/NAME"):
        Mapped(deployment="a")


def test_command_is_in_the_access_log_without_the_secrets_of_an_address(
    folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _traffic(folder)
    monkeypatch.setenv("SIDELIGHT_REASON", "complaint 4711")
    into = tmp_path / "again"
    done = CliRunner().invoke(
        app, ["replay", "--data", str(folder.data), "--into", str(into), "--first", "2"]
    )
    assert done.exit_code == 0, done.output
    note_replay(folder.data, to="https://me:secret@collector:1/events/token", into=None, first=0)

    (log,) = (folder.data / "access").glob("log-*.jsonl")
    one, other = (json.loads(line) for line in log.read_text().splitlines())
    assert (one["command"], one["reason"]) == ("replay", "complaint 4711")
    assert one["parameters"] == {"into": str(into), "first": 2}
    assert other["parameters"] == {"to": "collector", "first": 0}


def test_nothing_is_replayed_that_cannot_be_written_down(
    folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: AccessLog, __: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AccessLog, "append", full)
    with pytest.raises(ServiceError, match="nothing is replayed"):
        note_replay(folder.data, to=None, into=tmp_path / "again", first=0)
    with pytest.raises(ConfigurationError, match="an archive"):
        note_replay(tmp_path / "none", to=None, into=tmp_path / "again", first=0)
    assert not (tmp_path / "none").exists()
