"""A bucket: whole objects, clear errors, and nobody waits twice for one that is silent."""

from pathlib import Path

import pytest
from tests.adapters.bucket_folder import FolderStore

from sidelight.adapters import Bucket, LakeError, LakeUnreachable, Place, place_of
from sidelight.adapters._lake_remote import Copies


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    made = FolderStore(tmp_path / "store")
    monkeypatch.setattr("sidelight.adapters._lake_remote.connect_s3", lambda _: made)
    return made


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_objects_come_back_as_they_went(store: FolderStore, tmp_path: Path) -> None:
    bucket = Bucket(Place(url="s3://bucket/prefix"))
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 40_000)

    assert bucket.put(source, "lake/a/b") == 10_240_000
    bucket.get("lake/a/b", tmp_path / "back" / "b")
    bucket.put_bytes(b"x", "c")

    assert (tmp_path / "back" / "b").read_bytes() == source.read_bytes()
    assert store.names() == {"bucket/prefix/lake/a/b", "bucket/prefix/c"}
    assert list(bucket.names("lake")) == ["lake/a/b"]
    assert list(bucket.names("nothing")) == []
    assert (bucket.size("c"), bucket.size("d"), bucket.read("c")) == (1, None, b"x")
    bucket.delete("c")
    bucket.delete("c")
    assert bucket.read("c") is None


def test_what_is_nowhere_is_a_missing_file(store: FolderStore, tmp_path: Path) -> None:
    del store
    with pytest.raises(FileNotFoundError):
        Bucket(Place(url="s3://bucket")).get("a", tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        Bucket(Place(url="s3://bucket")).put(tmp_path / "none", "a")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_store_that_was_silent_is_left_alone_for_twice_as_long(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    bucket = Bucket(Place(url="s3://bucket"), clock=clock)

    def silent(_: object) -> None:
        clock.now_s += 11.0
        raise OSError("timeout")

    with monkeypatch.context() as patch:
        patch.setattr(store, "get_file_info", silent)
        with pytest.raises(LakeUnreachable, match="s3://bucket cannot be used now: timeout"):
            bucket.size("a")
    clock.now_s += 21.9
    with pytest.raises(LakeUnreachable, match="did not answer a moment ago"):
        bucket.size("a")

    clock.now_s += 0.2
    assert bucket.size("a") is None


def test_a_place_is_written_down_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush\n")
    place = Place(url="s3://b", access_key_from="env:KEY", secret_key_from=str(secret))
    monkeypatch.setenv("KEY", "mine")

    place.save(tmp_path / "lake")

    assert place_of(tmp_path / "lake") == place
    assert place_of(tmp_path / "other") is None
    assert "hush" not in (tmp_path / "lake" / "place.json").read_text()
    assert (place.settings().access_key, place.settings().secret_key) == ("mine", "hush")
    assert "secret" not in repr(place)


@pytest.mark.parametrize("where", ["env:NOT_THERE", "/not/there"])
def test_a_secret_that_is_not_there_is_said_without_its_place(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)

    with pytest.raises(LakeError, match=r"store\.s3\.access_key_from: expected") as raised:
        Place(url="s3://b", access_key_from=where).settings()

    assert where not in str(raised.value)


def test_a_place_that_cannot_be_read_is_a_lake_error(tmp_path: Path) -> None:
    (tmp_path / "place.json").write_text("{")

    with pytest.raises(LakeError, match=r"place\.json: expected where the lake is"):
        Copies(tmp_path).path("inferences/a.parquet")


def test_files_of_a_lake_without_a_bucket_are_where_they_are(tmp_path: Path) -> None:
    assert Copies(tmp_path).path("a") == tmp_path / "a"
