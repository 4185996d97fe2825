"""The lake in a real object store: it comes, goes and comes back, and no row is lost or twice."""

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from pyarrow.fs import FileSelector, FileType
from tests.services.conftest import run_command, wait_until
from tests.services.s3_server import BUCKET, S3Server

from sidelight.adapters import (
    Bucket,
    EmbeddedDocuments,
    Inferences,
    Lake,
    LakeError,
    LakeUnreachable,
    Manifest,
    Place,
)
from sidelight.logger._checkpoint import Checkpoint
from sidelight.payloads import ROW_SCHEMA, Batch
from sidelight.service._lake_moving import LakeMover

if TYPE_CHECKING:
    from tests.services.conftest import Service

_N_ROWS = 50
_PATIENCE_S = 240.0

_Answer = TypeVar("_Answer")


def _place(server: S3Server, folder: Path, prefix: str) -> Place:
    keys = {}
    for name in ("access_key", "secret_key"):
        path = folder / name
        path.write_text(getattr(server.settings, name))
        keys[f"{name}_from"] = str(path)
    return Place(
        url=f"s3://{BUCKET}/{prefix}", endpoint=server.endpoint, region="us-east-1", **keys
    )


def _answered(ask: Callable[[], _Answer]) -> _Answer:
    """Return what comes of something once the bucket answers; ours gives it up within seconds."""
    answers: list[_Answer] = []

    def is_answered() -> bool:
        with suppress(LakeUnreachable):
            answers.append(ask())
        return bool(answers)

    wait_until(is_answered, "the bucket answers", timeout_s=_PATIENCE_S)
    return answers[0]


def _objects(server: S3Server, prefix: str) -> dict[str, int]:
    found = server.files().get_file_info(
        FileSelector(f"{BUCKET}/{prefix}", recursive=True, allow_not_found=True)
    )
    start = len(f"{BUCKET}/{prefix}/")
    return {info.path[start:]: info.size for info in found if info.type is FileType.File}


def _batch(first: int) -> Batch:
    times = [1_700_000_000_000_000 + number * 1_000_000 for number in range(first, first + _N_ROWS)]
    given: dict[str, Any] = {
        "id": [f"i{number}" for number in range(first, first + _N_ROWS)],
        "row": [0] * _N_ROWS,
        "revision": [0] * _N_ROWS,
        "request_id": [f"r{number}" for number in range(first, first + _N_ROWS)],
        "time": times,
        "protocol": ["v2"] * _N_ROWS,
        "synthetic": [False] * _N_ROWS,
    }
    columns = [pa.array(given.get(item.name, [None] * _N_ROWS), item.type) for item in ROW_SCHEMA]
    columns.append(pa.array([float(number) for number in range(first, first + _N_ROWS)]))
    schema = pa.schema([*ROW_SCHEMA, pa.field("features.x", pa.float64())])
    records = pa.RecordBatch.from_arrays(columns, schema=schema)
    return Batch.build(records, deployment="prod/flights", layout={"protocol": "v2"})


class Moved:
    """A lake whose files go to the store as soon as they are there, and do not stay."""

    def __init__(self, data: Path, place: Place, *, keep_bytes: int = 0) -> None:
        self.data = data
        place.save(data / "lake")
        self.documents = EmbeddedDocuments(data)
        self.lake = Lake(data)
        self.mover = LakeMover(
            data, Bucket(place), self.documents, keep_bytes=keep_bytes, calm_s=0.0
        )
        self.queries = Inferences(data, self.documents)
        self._position = 0

    def add(self) -> None:
        self.documents.put(
            self.lake.stage(
                [_batch(self._position * _N_ROWS)], first=self._position, last=self._position
            )
        )
        self._position += 1

    def move(self) -> None:
        """Let a round come to its end."""
        _answered(self.mover.round)

    def count(self, **question: Any) -> int:
        return _answered(lambda: self.queries.count(**question))

    def local(self) -> list[Path]:
        return sorted((self.data / "lake").rglob("*.parquet"))

    def close(self) -> None:
        self.queries.close()
        self.documents.close()


@pytest.fixture
def moved(s3: S3Server, tmp_path: Path) -> Iterator[Moved]:
    lake = Moved(tmp_path / "data", _place(s3, tmp_path, tmp_path.name))
    yield lake
    lake.close()


def test_files_live_in_the_bucket_and_are_read_from_there(
    moved: Moved, s3: S3Server, tmp_path: Path
) -> None:
    for _ in range(3):
        moved.add()
    moved.move()
    objects = _objects(s3, tmp_path.name)

    assert moved.local() == []
    assert (
        sum(name.startswith("lake/inferences/prod%2Fflights/2023-11-14/") for name in objects) == 3
    )
    # Others read them as they are.
    dataset = ds.dataset(
        f"{BUCKET}/{tmp_path.name}/lake/inferences", filesystem=s3.files(), partitioning=None
    )
    assert dataset.count_rows() == 3 * _N_ROWS
    assert moved.count() == 3 * _N_ROWS
    assert moved.count(where="features.x >= 100") == _N_ROWS
    found = _answered(lambda: moved.queries.get("i77"))
    assert found is not None
    assert found.rows[0].features == {"x": 77.0}


def test_merges_replace_objects(moved: Moved, s3: S3Server, tmp_path: Path) -> None:
    for _ in range(3):
        moved.add()
    moved.move()
    before = _objects(s3, tmp_path.name)

    compaction = moved.lake.compact(Manifest(moved.documents), min_files=2)
    assert compaction is not None
    moved.documents.put(compaction.documents)
    moved.move()
    moved.documents.put(moved.lake.remove(compaction.obsolete))

    after = _objects(s3, tmp_path.name)
    assert len(after) == len(before) - 2
    assert moved.count() == 3 * _N_ROWS


def test_a_store_that_is_down_delays_its_files_alone(
    moved: Moved, s3: S3Server, tmp_path: Path
) -> None:
    moved.add()
    moved.move()
    s3.kill()
    try:
        moved.add()
        with pytest.raises(LakeUnreachable):
            moved.mover.round()
        # What has not gone yet is answered, what is in the store alone is refused.
        assert (
            moved.queries.count(where="features.x >= 50", from_="2023-11-14T22:14:10Z") == _N_ROWS
        )
        with pytest.raises(LakeError, match=r"cannot be used now|did not answer"):
            moved.queries.get("i7")
    finally:
        s3.start()

    # It takes files again some seconds before it gives any.
    moved.move()
    assert moved.count() == 2 * _N_ROWS
    assert len([name for name in _objects(s3, tmp_path.name) if name.endswith(".parquet")]) == 2


def test_what_a_kill_left_there_is_deleted_and_what_counts_is_not(
    moved: Moved, s3: S3Server, tmp_path: Path
) -> None:
    moved.add()
    moved.move()
    known = _objects(s3, tmp_path.name)
    bucket = Bucket(_place(s3, tmp_path, tmp_path.name))
    left = "lake/inferences/prod%2Fflights/2023-11-14/0-1-2-unknown.parquet"
    _answered(lambda: bucket.put_bytes(b"half", left))

    again = LakeMover(moved.data, bucket, moved.documents, keep_bytes=0, calm_s=0.0)
    _answered(again.round)

    assert _objects(s3, tmp_path.name) == known


def test_two_folders_cannot_have_one_place(moved: Moved, s3: S3Server, tmp_path: Path) -> None:
    moved.add()
    moved.move()
    known = _objects(s3, tmp_path.name)
    other = Moved(tmp_path / "other", _place(s3, tmp_path, tmp_path.name))
    other.add()

    with pytest.raises(LakeError, match="belongs to another data folder"):
        other.move()

    assert _objects(s3, tmp_path.name) == known
    assert len(other.local()) == 1
    other.close()


def _send(service: "Service", first: int, n: int) -> None:
    with httpx.Client(timeout=60) as client:
        for number in range(first, first + n):
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
                assert client.post(service.url, json=payload, headers=headers).status_code == 200


def test_a_service_keeps_its_lake_and_its_archive_in_a_bucket(
    start_service: "Callable[..., Service]", s3: S3Server, tmp_path: Path
) -> None:
    place = _place(s3, tmp_path, tmp_path.name)
    config: dict[str, Any] = {
        "store": {
            "lake": place.url,
            "archive": True,
            "s3": {
                "endpoint": place.endpoint,
                "region": "us-east-1",
                "access_key_from": place.access_key_from,
                "secret_key_from": place.secret_key_from,
            },
        }
    }
    service = start_service(config=config)
    _send(service, 0, 40)
    service.wait_stored(40)
    s3.kill()
    _send(service, 40, 20)
    service.wait_stored(60)
    assert service.stop() == 0
    # From here on a query has to ask the bucket.
    config["store"]["local_copies"] = "1B"
    service._config.write_text(json.dumps(config))
    service.start()
    service.wait_for(
        lambda metrics: metrics.total("lake_waiting_files") > 0,
        "files wait",
        timeout_s=_PATIENCE_S,
    )
    s3.start()

    def parquet() -> list[str]:
        return [name for name in _objects(s3, tmp_path.name) if name.endswith(".parquet")]

    wait_until(parquet, "files are in the store", timeout_s=_PATIENCE_S)
    service.wait_for(
        lambda metrics: metrics.total("lake_waiting_files") == 0,
        "none waits",
        timeout_s=_PATIENCE_S,
    )
    assert len(_found(service)) == 60
    assert service.stop() == 0
    service.start()
    _verify_copy(service, s3, tmp_path)
    backups = (service.data.with_name(f"backup{number}") for number in itertools.count())

    def is_backed_up() -> bool:
        backup = next(backups)
        done = service.command("export", "--backup", str(backup))
        # A bucket that is silent for seconds is given up, and then there is no backup.
        if done.returncode:
            assert "cannot be used now" in done.stderr or "did not answer" in done.stderr
            return False
        rows = ds.dataset(backup / "lake" / "inferences", partitioning=None).count_rows()
        assert rows == 60
        return True

    wait_until(is_backed_up, "there is a backup", timeout_s=_PATIENCE_S)


def _found(service: "Service") -> list[Any]:
    """Return all inferences once the bucket answers."""
    items: list[Any] = []

    def is_answered() -> bool:
        answer = service.client.get(f"{service.url}/v1/inferences", params={"limit": 1000})
        if answer.status_code == 503:
            return False
        assert answer.status_code == 200, answer.text
        items[:] = answer.json()["items"]
        return True

    wait_until(is_answered, "there is an answer", timeout_s=_PATIENCE_S)
    return items


def _sealed(data: Path) -> list[str]:
    checkpoint = Checkpoint.load(data)
    return [] if checkpoint is None else [segment.name for segment in checkpoint.segments]


def _verify_copy(service: "Service", s3: S3Server, tmp_path: Path) -> None:
    """Download what was sealed, and check it."""
    copy = tmp_path / "copy"

    def download(name: str) -> None:
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with s3.files().open_input_stream(f"{BUCKET}/{tmp_path.name}/{name}") as stream:
            target.write_bytes(stream.read())

    def is_copied() -> bool:
        if not {"raw/checkpoint.json", "format"} <= _objects(s3, tmp_path.name).keys():
            return False
        # Before the segments that it names: a later one may name more than were listed.
        download("raw/checkpoint.json")
        return _sealed(copy) == _sealed(service.data)

    wait_until(is_copied, "all segments are in the store", timeout_s=_PATIENCE_S)
    assert _sealed(copy)
    for name in ("format", *(f"raw/{name}" for name in _sealed(copy))):
        download(name)
    for path in (copy / "raw").glob("*"):
        if path.suffix != ".json":
            assert path.read_bytes() == (service.data / "raw" / path.name).read_bytes()
    done = run_command("verify", "--sealed-only", "--data", str(copy))
    assert done.returncode == 0, done.stdout + done.stderr
    segment = max((copy / "raw").glob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    assert run_command("verify", "--sealed-only", "--data", str(copy)).returncode == 1
