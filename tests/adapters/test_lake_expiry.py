"""Old rows leave the lake: whole files first, the others are written again without them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.adapters import Compaction, Lake, LakeError, LakeFile, Manifest
from sidelight.adapters._lake_expiry import meets

_EPOCH_US = int(datetime(2013, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
_MINUTE_US = 60_000_000


def _at(minutes: float) -> int:
    return _EPOCH_US + int(minutes * _MINUTE_US)


def _add(store: Any, samples: SimpleNamespace, *minutes: float) -> LakeFile:
    rows = [samples.row(f"at{minute:g}", minute, **{"features.x": minute}) for minute in minutes]
    store.add(samples.batch(rows))
    (file,) = _files(store)
    return file


def _files(store: Any) -> list[LakeFile]:
    return Manifest(store.documents).files("inferences", fresh=True)


def _expire(store: Any, file: LakeFile, **options: Any) -> Compaction | None:
    change: Compaction | None = store.lake.expire(file, **options)
    if change is not None:
        store.documents.put(change.documents)
        store.documents.put(store.lake.remove(change.obsolete))
    return change


def _on_disk(store: Any) -> set[str]:
    return {
        path.relative_to(store.lake.folder).as_posix()
        for path in store.lake.folder.rglob("*.parquet")
    }


def test_a_file_of_old_rows_goes_whole_and_is_not_read(store: Any, samples: Any) -> None:
    file = _add(store, samples, 1, 2, 3)
    (store.lake.folder / file.path).write_bytes(b"not even Parquet")

    change = _expire(store, file, before_us=_at(3.5))

    assert change is not None
    assert change.rows == 0
    assert (store.all_ids(), _on_disk(store)) == ([], set())


def test_of_a_file_that_holds_both_the_young_rows_stay(store: Any, samples: Any) -> None:
    file = _add(store, samples, 3, 1, 2, 4)

    change = _expire(store, file, before_us=_at(2))

    (rest,) = _files(store)
    assert change is not None
    assert (change.rows, rest.rows, rest.min_us, rest.max_us) == (3, 3, _at(2), _at(4))
    assert store.all_ids(order="time") == ["at2", "at3", "at4"]
    assert _on_disk(store) == {rest.path}
    before = (file.columns, file.layout, file.first, file.last, file.versions)
    assert (rest.columns, rest.layout, rest.first, rest.last, rest.versions) == before
    schema = pq.read_schema(store.lake.folder / rest.path)
    assert schema.metadata[b"sidelight.deployment"] == b"prod/flights"


def test_a_file_of_young_rows_is_left_alone(store: Any, samples: Any) -> None:
    file = _add(store, samples, 1, 2)

    assert _expire(store, file, before_us=_at(1)) is None
    assert _files(store) == [file]


@pytest.mark.parametrize(
    ("kept", "stay"),
    [
        pytest.param([(_at(2), _at(3))], ["at2", "at5"], id="inside"),
        pytest.param([(None, None)], ["at1", "at2", "at3", "at5"], id="all"),
        pytest.param([(None, _at(2)), (_at(3), None)], ["at1", "at3", "at5"], id="two"),
        pytest.param([(_at(7), _at(9))], ["at5"], id="elsewhere"),
    ],
)
def test_rows_on_hold_stay_however_old(
    store: Any, samples: Any, kept: list[Any], stay: list[str]
) -> None:
    file = _add(store, samples, 1, 2, 3, 5)

    _expire(store, file, before_us=_at(4), kept=kept)

    assert store.all_ids(order="time") == stay


def test_a_file_whose_old_rows_are_all_on_hold_is_not_written_again(
    store: Any, samples: Any
) -> None:
    file = _add(store, samples, 1, 2, 5)

    assert _expire(store, file, before_us=_at(4), kept=[(None, _at(4))]) is None
    assert _files(store) == [file]


def test_done_again_after_a_kill_it_writes_the_same_file(store: Any, samples: Any) -> None:
    file = _add(store, samples, 1, 2, 3)
    first = store.lake.expire(file, before_us=_at(2))
    killed = _on_disk(store)

    again = store.lake.expire(file, before_us=_at(2))

    assert [item.key for item in again.documents] == [item.key for item in first.documents]
    assert _on_disk(store) == killed
    # What was never committed is not seen, and swept at the next start.
    assert store.all_ids(order="time") == ["at1", "at2", "at3"]
    store.lake.sweep(Manifest(store.documents))
    assert _on_disk(store) == {file.path}


def test_a_full_disk_leaves_everything_as_it_was(
    store: Any, samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _add(store, samples, 1, 2, 3)

    def full(_: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device", str(target))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(LakeError, match="cannot take old rows out"):
            store.lake.expire(file, before_us=_at(2))

    assert store.all_ids(order="time") == ["at1", "at2", "at3"]
    assert _expire(store, file, before_us=_at(2)) is not None


def test_a_file_of_many_row_groups_loses_the_right_rows(store: Any, samples: Any) -> None:
    n = 40_000
    rows = [samples.row(f"r{i:05d}", i / 100, **{"features.x": i}) for i in range(n)]
    store.add(samples.batch(rows))
    (file,) = _files(store)

    _expire(store, file, before_us=_at(205.005))

    (rest,) = _files(store)
    left = pq.read_table(store.lake.folder / rest.path, partitioning=None)
    assert left.column("features.x").to_pylist() == list(range(20501, n))
    assert left.column("id").to_pylist() == [f"r{i:05d}" for i in range(20501, n)]


@given(
    times=st.lists(st.integers(0, 20), min_size=1, max_size=12),
    before=st.integers(-1, 22),
    kept=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_what_stays_is_what_is_young_or_on_hold(
    tmp_path_factory: pytest.TempPathFactory,
    samples: Any,
    times: list[int],
    before: int,
    kept: list[tuple[int, int]],
) -> None:
    store = samples.Store(tmp_path_factory.mktemp("lake"))
    rows = [samples.row(f"{i}-{time}", time) for i, time in enumerate(times)]
    store.add(samples.batch(rows))
    (file,) = _files(store)
    spans = [(_at(first), _at(behind)) for first, behind in kept]

    _expire(store, file, before_us=_at(before), kept=spans)

    expected = [
        f"{i}-{time}"
        for i, time in enumerate(times)
        if time >= before or any(first <= time < behind for first, behind in kept)
    ]
    assert sorted(store.all_ids()) == sorted(expected)
    store.close()


def test_a_span_is_met_by_its_first_moment_and_not_by_its_end() -> None:
    day = timedelta(days=1) // timedelta(microseconds=1)

    assert meets(0, day, (day, None))
    assert not meets(0, day - 1, (day, None))
    assert not meets(day, 2 * day, (None, day))
    assert meets(day - 1, 2 * day, (None, day))


def test_a_merge_waits_for_room(store: Any, samples: Any) -> None:
    for minute in range(4):
        store.add(samples.batch([samples.row(f"r{minute}", minute)]))
    manifest = Manifest(store.documents)

    assert Lake(store.folder, reserve_bytes=1 << 60).compact(manifest, min_files=2) is None
    assert Lake(store.folder, reserve_bytes=1 << 10).compact(manifest, min_files=2) is not None
