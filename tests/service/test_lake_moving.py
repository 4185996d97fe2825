"""Files go to the bucket and come back; nothing waits for it, nothing is lost or there twice."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.bucket_folder import FolderStore, folder_bucket

from sidelight.adapters import Bucket, Inferences, Lake, LakeError, LakeUnreachable, Manifest, Place
from sidelight.logger import verify
from sidelight.logger._checkpoint import Checkpoint, LogHead, SealedSegment
from sidelight.service._backup import back_up
from sidelight.service._erasure_derived import ErasureDerived
from sidelight.service._lake_moving import LakeMover
from sidelight.service._lake_place import note_place
from sidelight.service._settings import Settings
from sidelight.service.errors import ConfigurationError


class Moved:
    """A data folder whose lake goes to a bucket that is a folder."""

    def __init__(self, folder: Any, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.store = FolderStore(tmp_path / "bucket")
        self.bucket = folder_bucket(self.store, patch)
        Place(url="s3://bucket/prefix").save(folder.data / "lake")
        self.queries = Inferences(folder.data, folder.documents)
        self.now_s = 0.0
        self.mover = self.new_mover()

    def new_mover(self, **options: Any) -> LakeMover:
        return LakeMover(
            self.folder.data,
            self.bucket,
            self.folder.documents,
            **{"keep_bytes": 0, "clock": lambda: self.now_s, **options},
        )

    def add(self, n: int = 3) -> None:
        for number in range(n):
            self.folder.ask([[number, "f"]])
        self.folder.work()

    def rounds(self) -> None:
        """See what is new, and send it when it is old enough."""
        self.mover.round()
        self.now_s += 20.0
        self.mover.round()

    def local(self) -> set[str]:
        lake = self.folder.data / "lake"
        return {path.relative_to(lake).as_posix() for path in lake.rglob("*.parquet")}

    def remote(self) -> set[str]:
        return {
            name.removeprefix("bucket/prefix/lake/")
            for name in self.store.names()
            if name.endswith(".parquet")
        }

    def gauge(self, name: str) -> float:
        document = self.folder.documents.get("gauges", "lake")
        return float(next(value for key, _, value in document["values"] if key == name))


@pytest.fixture
def moved(folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Moved]:
    made = Moved(folder, tmp_path, monkeypatch)
    yield made
    made.queries.close()


def test_files_go_when_they_are_old_enough_and_are_fetched_when_asked_for(moved: Moved) -> None:
    moved.add()
    files = moved.local()
    moved.mover.round()
    waiting = moved.gauge("lake_waiting_files"), moved.remote()

    moved.now_s += 20.0
    moved.mover.round()

    assert waiting == (len(files), set())
    assert (moved.remote(), moved.local()) == (files, set())
    assert moved.gauge("lake_waiting_files") == moved.gauge("lake_waiting_bytes") == 0
    assert moved.queries.count() == 3
    assert moved.local()


def test_local_copies_stay_as_long_as_there_is_room(moved: Moved) -> None:
    moved.mover = moved.new_mover(keep_bytes=1 << 30)
    moved.add()
    files = moved.local()

    moved.rounds()

    assert moved.local() == moved.remote() == files


def test_a_copy_that_a_query_asked_for_stays_a_while_however_little_room_there_is(
    moved: Moved,
) -> None:
    moved.add()
    moved.rounds()
    assert moved.local() == set()

    assert moved.queries.count() == 3
    moved.mover.round()
    held = moved.local()
    for name in held:
        os.utime(moved.folder.data / "lake" / name, (0, 0))
    moved.mover.round()

    assert held == moved.remote()
    assert moved.local() == set()


def test_a_query_of_more_than_there_is_room_for_is_answered_while_room_is_made(
    moved: Moved, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        moved.add()
    moved.rounds()
    assert len(moved.remote()) == 3
    get = Bucket.get

    def interrupted(bucket: Bucket, name: str, target: Path) -> None:
        get(bucket, name, target)
        moved.mover.round()

    monkeypatch.setattr(Bucket, "get", interrupted)

    assert moved.queries.count(where="status is null or status > 0") == 9


def test_what_was_merged_is_replaced_in_the_bucket(moved: Moved) -> None:
    for _ in range(2):
        moved.add()
    moved.rounds()
    before = moved.remote()

    lake, manifest = Lake(moved.folder.data), Manifest(moved.folder.documents)
    compaction = lake.compact(manifest, min_files=2)
    assert compaction is not None
    moved.folder.documents.put(compaction.documents)
    moved.rounds()

    assert moved.remote() == before - set(compaction.obsolete) | set(compaction.written)
    assert moved.queries.count() == 6


def test_while_the_bucket_is_down_files_wait_and_the_rest_goes_on(moved: Moved) -> None:
    moved.add()
    moved.rounds()
    moved.store.is_down = True
    moved.add()
    files = moved.local()
    with pytest.raises(LakeUnreachable, match="SLOW_DOWN"):
        moved.rounds()
    with pytest.raises(LakeError, match="s3://bucket/prefix cannot be used now"):
        moved.queries.count()
    waiting = moved.gauge("lake_waiting_files")

    moved.store.is_down = False
    moved.rounds()

    assert waiting == len(files) > 0
    assert moved.queries.count() == 6
    assert moved.gauge("lake_waiting_files") == 0


def test_an_upload_that_was_not_written_down_is_done_again(
    moved: Moved, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved.add()
    with monkeypatch.context() as patch:
        patch.setattr(moved.mover, "_note", _refuse)
        with pytest.raises(LakeError):
            moved.rounds()
    uploaded = moved.remote()

    moved.mover = moved.new_mover()
    moved.rounds()

    assert len(uploaded) == 1
    assert uploaded == moved.remote()
    assert moved.local() == set()
    assert moved.queries.count() == 3


def test_what_may_be_in_the_bucket_is_written_down_before(
    moved: Moved, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved.add()
    derived = ErasureDerived(
        moved.folder.journals, moved.folder.documents, Lake(moved.folder.data), moved.folder.data
    )
    with monkeypatch.context() as patch:
        patch.setattr(moved.mover, "_note", _refuse)
        with pytest.raises(LakeError):
            moved.rounds()
    # Somebody erases the rows of the file that is sent just then.
    (file,) = moved.mover._manifest.files("inferences")
    for _ in derived.rows("prod/flights", [item.id for item in moved.queries.find()[0]]):
        pass
    is_done = [derived.is_bucket_done()]
    assert moved.remote() == {file.path}
    moved.mover.round()

    assert [*is_done, derived.is_bucket_done()] == [False, True]
    assert moved.remote() == set()


def test_a_file_that_was_replaced_meanwhile_does_not_go(
    moved: Moved, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved.add()
    monkeypatch.setattr(moved.mover._manifest, "are_visible", lambda _: False)
    moved.rounds()

    assert moved.remote() == set()


def _refuse(*_: Any) -> None:
    raise LakeError("killed here")


def test_a_start_deletes_what_nobody_names(moved: Moved) -> None:
    moved.add()
    moved.rounds()
    known = moved.store.names()
    stray = moved.store.folder / "bucket/prefix/lake/inferences/x/2013-01-01/stray.parquet"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"PAR1")

    moved.mover = moved.new_mover()
    moved.rounds()

    assert moved.store.names() == known


def test_a_copy_that_is_not_what_was_sent_stays_and_goes_again(moved: Moved) -> None:
    moved.mover = moved.new_mover(keep_bytes=1 << 30)
    moved.add()
    moved.rounds()
    name = min(moved.remote())
    (moved.store.folder / "bucket/prefix/lake" / name).write_bytes(b"cut off")

    moved.mover = moved.new_mover(keep_bytes=0)
    moved.mover.round()
    stays = name in moved.local()
    moved.rounds()
    moved.rounds()

    assert stays
    assert moved.local() == set()
    assert moved.queries.count() == 3


def test_a_place_belongs_to_one_folder(moved: Moved) -> None:
    owner = moved.store.folder / "bucket/prefix/sidelight.json"
    owner.parent.mkdir(parents=True)
    owner.write_text('{"folder": "another"}')
    moved.add()

    with pytest.raises(LakeError, match="belongs to another data folder"):
        moved.mover.round()

    assert moved.remote() == set()


def test_sealed_segments_are_copied_byte_for_byte_and_can_be_checked(
    moved: Moved, tmp_path: Path
) -> None:
    moved.mover = moved.new_mover(copies_archive=True)
    moved.add()
    moved.folder.writer.close()

    moved.rounds()
    known = moved.store.names()
    moved.rounds()

    copy = tmp_path / "bucket/bucket/prefix"
    raw = moved.folder.data / "raw"
    assert moved.store.names() == known
    assert {path.name: path.read_bytes() for path in (copy / "raw").iterdir()} == {
        path.name: path.read_bytes() for path in raw.iterdir()
    }
    assert verify(copy).ok
    segment = next(path for path in (copy / "raw").iterdir() if path.suffix != ".json")
    content = bytearray(segment.read_bytes())
    content[-1] ^= 1
    segment.write_bytes(content)
    assert not verify(copy).ok


def test_a_checkpoint_that_came_on_goes_now_and_then_and_one_with_other_segments_at_once(
    moved: Moved,
) -> None:
    moved.mover = moved.new_mover(copies_archive=True)
    copy = moved.store.folder / "bucket/prefix/raw/checkpoint.json"
    sealed = SealedSegment(
        name="00000000000000000000.seg", bytes=9, records=1, first=0, digest="d", time_ns=1
    )
    (moved.folder.data / "raw" / sealed.name).write_bytes(b"x" * 9)
    entries, put = 0, []

    def round_at(now_s: float, **what: Any) -> None:
        """Go round after somebody has asked once more."""
        nonlocal entries
        entries += 1
        head = LogHead(entries=entries, file="log", bytes=entries, digest="d")
        Checkpoint(access=head, **what).store(moved.folder.data)
        moved.now_s = now_s
        moved.mover.round()
        access = Checkpoint.decode(copy.read_bytes()).access
        assert access is not None
        put.append(access.entries)

    for now_s in (0.0, 2.0, 9.9, 10.0, 12.0):
        round_at(now_s)
    round_at(14.0, segments=(sealed,))
    round_at(16.0, segments=(sealed,))
    round_at(18.0, segments=(replace(sealed, retired_ns=1, why="old"),))
    assert not (copy.parent / sealed.name).exists()
    moved.mover = moved.new_mover(copies_archive=True)
    round_at(19.0, segments=(replace(sealed, retired_ns=1, why="old"),))

    assert put == [1, 1, 1, 4, 4, 6, 6, 8, 9]


def test_a_backup_holds_what_is_in_the_bucket(moved: Moved, tmp_path: Path) -> None:
    moved.add()
    files = moved.local()
    moved.rounds()

    back_up(moved.folder.data, tmp_path / "copy")

    lake = tmp_path / "copy" / "lake"
    assert {path.relative_to(lake).as_posix() for path in lake.rglob("*.parquet")} == files


def test_old_rows_of_a_file_in_the_bucket_go(moved: Moved) -> None:
    moved.add()
    moved.rounds()
    (file,) = Manifest(moved.folder.documents).files("inferences")

    change = Lake(moved.folder.data).expire(file, before_us=file.min_us + 1)

    assert change is not None
    moved.folder.documents.put(change.documents)
    moved.rounds()
    assert moved.queries.count() == 2
    assert file.path not in moved.remote()


def _settings(data: Path, **store: Any) -> Settings:
    return Settings.model_validate({"data": data, "store": store})


def test_where_the_lake_is_stays_written_down(tmp_path: Path) -> None:
    here = _settings(tmp_path, lake="s3://bucket/prefix/", s3={"endpoint": "http://127.0.0.1:9"})

    assert note_place(_settings(tmp_path)) is None
    place = note_place(here)

    assert place is not None
    assert place == note_place(here)
    assert (place.url, place.endpoint) == ("s3://bucket/prefix", "http://127.0.0.1:9")
    for other in ({}, {"lake": "s3://bucket/other"}):
        with pytest.raises(ConfigurationError, match="expected s3://bucket/prefix, where files"):
            note_place(_settings(tmp_path, **other))


@pytest.mark.parametrize("data", ["s3://bucket/prefix", Path("s3://bucket/prefix")])
def test_data_in_a_bucket_is_a_lake_there_and_a_folder_here(data: Any, tmp_path: Path) -> None:
    settings = Settings.model_validate({"data": data, "local_data": tmp_path})
    again = Settings.model_validate(settings.model_dump(mode="json", by_alias=True))

    for found in (settings, again):
        assert found.data == tmp_path
        assert found.store.lake == "s3://bucket/prefix"
        assert found.store.archive
    assert Settings.model_validate({"data": data}).data == Path("sidelight-data")


@pytest.mark.parametrize(
    "store",
    [
        pytest.param({"lake": "s3://"}, id="no bucket"),
        pytest.param({"lake": "s3://a/../b"}, id="two dots"),
        pytest.param({"lake": "gs://a"}, id="another store"),
        pytest.param({"archive": True}, id="archive without a bucket"),
        pytest.param({"s3": {}}, id="keys without a bucket"),
    ],
)
def test_a_place_that_is_none_is_refused(store: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="s3://"):
        Settings.model_validate({"store": store})
