"""Hot files: many deployments share one, and no answer changes when their rows move."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.adapters import (
    JoinedScores,
    Lake,
    LakeError,
    LakeReader,
    Manifest,
    Scores,
    _lake_rows,
)
from sidelight.adapters._lake_writing import write_file
from sidelight.payloads import Batch

N_DEPLOYMENTS = 12


@pytest.fixture
def shared(store: Any, samples: SimpleNamespace) -> Any:
    """A lake with one hot file of many deployments: three rows each, on two days."""
    store.add(*_batches(samples))
    return store


def _batches(samples: SimpleNamespace) -> list[Batch]:
    return [
        samples.batch(
            [
                samples.row(
                    f"{number}-{place}",
                    minutes=number + 720 * place,
                    version=f"v{place % 2}",
                    **{"features.x": float(number), "outputs.y": place},
                )
                for place in range(3)
            ],
            deployment=f"prod/d{number}",
            layout={"number": number},
        )
        for number in range(N_DEPLOYMENTS)
    ]


def _files(store: Any, ending: str) -> list[Path]:
    return sorted((store.folder / "lake").rglob(f"*.{ending}"))


def _settle(store: Any) -> Any:
    compaction = store.lake.settle(Manifest(store.documents))
    store.documents.put(compaction.documents)
    return compaction


def test_many_deployments_share_one_file_and_one_entry(shared: Any) -> None:
    entries = shared.documents.find("lake_files")

    assert len(_files(shared, "arrows")) == len(entries) == 1
    assert _files(shared, "parquet") == []
    assert (entries[0][2]["first"], entries[0][2]["last"]) == (0, 0)


def test_parts_say_what_each_deployment_has(shared: Any) -> None:
    (file,) = Manifest(shared.documents).files("inferences", deployment="prod/d7")

    assert (file.rows, file.partition, file.first, file.last) == (3, 0, 0, 0)
    assert file.max_us - file.min_us == 2 * 720 * 60_000_000
    assert file.versions == ("v0", "v1")
    assert dict(file.columns)["features.x"] == "double"
    assert file.entry == "hot/inferences/0-000000000000-000000000000.arrows"


def test_hot_rows_are_found_at_once(shared: Any) -> None:
    found = shared.queries.get("7-1")

    assert found is not None
    assert (found.deployment, found.version) == ("prod/d7", "v1")
    assert found.rows[0].features == {"x": 7.0}
    assert shared.queries.get("no-such-id") is None
    assert shared.all_ids(deployment="prod/d3", order="time", limit=1) == ["3-0", "3-1", "3-2"]
    assert sorted(shared.all_ids(where="features.x >= 10 and outputs.y < 2")) == [
        *("10-0", "10-1", "11-0", "11-1"),
    ]
    assert shared.queries.count(version="v1") == N_DEPLOYMENTS


def test_rows_move_to_files_of_their_deployment_and_day(shared: Any) -> None:
    ids = sorted(shared.all_ids())

    compaction = _settle(shared)
    before_removal = sorted(shared.all_ids())
    shared.documents.put(shared.lake.remove(compaction.obsolete))

    assert compaction.rows == 3 * N_DEPLOYMENTS
    assert before_removal == sorted(shared.all_ids()) == ids
    assert _files(shared, "arrows") == []
    days = {(path.parent.parent.name, path.parent.name) for path in _files(shared, "parquet")}
    assert days == {
        (f"prod%2Fd{number}", f"2013-01-0{day}")
        for number in range(N_DEPLOYMENTS)
        for day in (1, 2)
    }
    for path in _files(shared, "parquet"):
        table = pq.read_table(path, partitioning=None)
        assert {str(time)[:10] for time in table.column("time").to_pylist()} == {path.parent.name}
        number = int(path.parent.parent.name.removeprefix("prod%2Fd"))
        assert json.loads(table.schema.metadata[b"sidelight.layout"]) == {"number": number}
        assert table.schema.metadata[b"sidelight.deployment"] == f"prod/d{number}".encode()
    assert store_is_settled(shared)


def store_is_settled(store: Any) -> bool:
    return store.lake.settle(Manifest(store.documents)) is None


def test_rows_of_one_batch_on_two_days_become_two_files(
    store: Any, samples: SimpleNamespace
) -> None:
    rows = [samples.row("a", minutes=1439), samples.row("b", minutes=1440), samples.row("c")]
    documents = store.add(samples.batch(rows))

    assert sorted((item.value["rows"], item.value["min_time"][:10]) for item in documents) == [
        (1, "2013-01-02"),
        (2, "2013-01-01"),
    ]
    assert sorted(store.ids()) == ["a", "b", "c"]


def test_rows_of_a_clock_that_jumps_do_not_become_thousands_of_files(
    store: Any, samples: SimpleNamespace
) -> None:
    rows = [samples.row(f"i{number}", minutes=1440 * number) for number in range(401)]
    store.add(samples.batch(rows))

    _settle(store)

    assert len(_files(store, "parquet")) == 1
    assert len(store.all_ids()) == 401
    assert store.ids(from_="2013-01-03", to="2013-01-04") == ["i2"]


def test_a_few_hot_files_wait_for_more(shared: Any) -> None:
    assert shared.lake.settle(Manifest(shared.documents), min_files=2) is None


def test_who_has_many_rows_at_once_has_a_file_of_its_own(
    store: Any, samples: SimpleNamespace
) -> None:
    many = samples.batch(
        [samples.row(f"m{number}", minutes=number / 100) for number in range(4096)],
        deployment="prod/busy",
    )
    store.add(*_batches(samples), many)

    assert [path.parent.parent.name for path in _files(store, "parquet")] == ["prod%2Fbusy"]
    assert len(_files(store, "arrows")) == 1
    assert store.queries.count() == 4096 + 3 * N_DEPLOYMENTS


def test_a_hot_file_that_was_not_committed_is_swept(shared: Any, samples: SimpleNamespace) -> None:
    kept = _files(shared, "arrows")
    shared.lake.stage(_batches(samples), first=9, last=9)

    forgotten = shared.lake.sweep(Manifest(shared.documents))

    assert forgotten == []
    assert _files(shared, "arrows") == kept
    assert len(shared.all_ids()) == 3 * N_DEPLOYMENTS


def test_a_sweep_finishes_a_move_that_a_kill_cut_off(shared: Any) -> None:
    _settle(shared)

    shared.documents.put(shared.lake.sweep(Manifest(shared.documents)))

    assert _files(shared, "arrows") == []
    assert len(shared.all_ids()) == 3 * N_DEPLOYMENTS


def test_a_move_that_was_not_committed_leaves_nothing(shared: Any) -> None:
    compaction = shared.lake.settle(Manifest(shared.documents))

    shared.lake.unstage(compaction.written)

    assert _files(shared, "parquet") == []
    assert len(shared.all_ids()) == 3 * N_DEPLOYMENTS


def test_hot_rows_do_not_expire_before_they_have_moved(shared: Any) -> None:
    (file,) = Manifest(shared.documents).files("inferences", deployment="prod/d7")

    assert shared.lake.expire(file, before_us=file.max_us + 1) is None


def test_a_damaged_hot_file_is_a_lake_error(shared: Any) -> None:
    (path,) = _files(shared, "arrows")
    path.write_bytes(b"x" * path.stat().st_size)

    with pytest.raises(LakeError):
        shared.queries.get("7-1")
    with pytest.raises(LakeError):
        shared.lake.settle(Manifest(shared.documents))


def test_a_missing_hot_file_is_a_lake_error(shared: Any) -> None:
    (path,) = _files(shared, "arrows")
    path.unlink()

    with pytest.raises(LakeError, match="missing"):
        shared.queries.get("7-1")


def test_a_disk_that_refuses_is_a_lake_error(tmp_path: Path, samples: SimpleNamespace) -> None:
    (tmp_path / "lake").write_text("a file where the folder should be")

    with pytest.raises(LakeError, match="cannot write hot/inferences"):
        Lake(tmp_path).stage(_batches(samples), first=0, last=0)


def test_columns_of_any_type_and_name_are_read_hot(store: Any, samples: SimpleNamespace) -> None:
    values = {
        "features.b": b"\x00\xff",
        "features.B": True,
        "features.l": [1.0, 2.0],
        "features.n": None,
        "features.h": np.float16(0.5),
        "outputs.y": 1,
    }
    types = {
        "features.l": pa.list_(pa.float32()),
        "features.n": pa.null(),
        "features.h": pa.float16(),
        "outputs.y": pa.uint8(),
    }
    store.add(
        *(
            samples.batch(
                [samples.row(f"i{number}", **values)], types=types, deployment=f"d{number}"
            )
            for number in range(N_DEPLOYMENTS)
        )
    )
    hot = store.queries.get("i5")

    _settle(store)

    assert hot is not None
    assert hot == store.queries.get("i5")
    assert len(store.ids(where="outputs.y = 1")) == N_DEPLOYMENTS


def _scores(batches: list[Batch]) -> list[tuple[Batch, Any, Any, Any]]:
    return [
        (
            batch,
            np.arange(len(batch)) + number / 100,
            np.where(np.arange(len(batch)) == 1, np.nan, 0.5),
            np.arange(len(batch)) > 1,
        )
        for number, batch in enumerate(batches)
    ]


def test_joined_scores_are_those_of_each_batch(samples: SimpleNamespace) -> None:
    items = _scores(_batches(samples))

    joined = dict(Scores.joined(items).by_deployment())

    assert joined == {
        item[0].deployment: Scores.of(
            item[0], outlier_score=item[1], p_value=item[2], outlier=item[3]
        ).records
        for item in items
    }
    assert Scores.joined([]).owners == ()


@pytest.mark.parametrize("n_batches", [2, N_DEPLOYMENTS])
def test_scores_are_found_hot_and_moved(
    store: Any, samples: SimpleNamespace, n_batches: int
) -> None:
    batches = _batches(samples)
    store.add(*batches)
    scores = Scores.joined(_scores(batches[:n_batches]))
    store.documents.put(store.lake.stage_scores([scores], first=0, last=0))

    def answers() -> list[Any]:
        one = store.queries.get("1-2")
        return [one.rows[0].outlier_score, sorted(store.ids(where="outlier_score > 1.5"))]

    hot = answers()
    while (compaction := store.lake.settle(Manifest(store.documents))) is not None:
        store.documents.put([*compaction.documents, *store.lake.remove(compaction.obsolete)])

    assert isinstance(scores, JoinedScores)
    assert hot == answers() == [2.01, sorted(f"{number}-2" for number in range(n_batches))]


def test_a_reader_gives_any_file_as_a_table(shared: Any, samples: SimpleNamespace) -> None:
    shared.add(samples.batch([samples.row("own", **{"features.x": 1.0})]))
    reader = LakeReader(shared.folder / "lake")

    tables = [
        reader.table(file, ["id", "row"]) for file in Manifest(shared.documents).files("inferences")
    ]

    assert len({name for table in tables for name in table.column("id").to_pylist()}) == 37
    assert {tuple(table.column_names) for table in tables} == {("id", "row")}


@settings(max_examples=4, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 10),
            st.integers(0, 3),
            st.integers(0, 1),
            st.integers(0, 2000),
            st.integers(0, 2),
        ),
        min_size=1,
        max_size=40,
        unique_by=lambda item: item[:3],
    )
)
def test_no_answer_depends_on_where_rows_stand(
    tmp_path_factory: pytest.TempPathFactory,
    samples: SimpleNamespace,
    items: list[tuple[int, int, int, int, int]],
) -> None:
    store = samples.Store(tmp_path_factory.mktemp("lake"))
    for step in range(3):
        batches: dict[tuple[int, int], list[dict[str, Any]]] = {}
        for deployment, inference, revision, minutes, of_step in items:
            row = samples.row(
                f"i{deployment}-{inference}",
                minutes=minutes,
                revision=revision,
                **{"features.x": minutes % 7},
            )
            if of_step == step:
                batches.setdefault((deployment, inference % 2), []).append(row)
        store.add(
            *(
                samples.batch(rows, deployment=f"prod/d{deployment}", layout={"kind": kind})
                for (deployment, kind), rows in batches.items()
            )
        )

    def answers() -> list[Any]:
        ids = store.all_ids(limit=7)
        return [
            ids,
            [store.queries.get(item) for item in sorted(set(ids))[:4]],
            store.queries.count(where="features.x > 3"),
            store.all_ids(deployment="prod/d3", order="time"),
        ]

    hot = answers()
    while (compaction := store.lake.settle(Manifest(store.documents))) is not None:
        store.documents.put([*compaction.documents, *store.lake.remove(compaction.obsolete)])
    moved = answers()
    while (compaction := store.lake.compact(Manifest(store.documents), min_files=2)) is not None:
        store.documents.put([*compaction.documents, *store.lake.remove(compaction.obsolete)])

    assert hot == moved == answers()
    store.close()


def test_a_move_that_fails_half_way_says_what_it_wrote(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [0]

    def failing(*arguments: Any, **options: Any) -> int:
        calls[0] += 1
        if calls[0] == 3:
            raise OSError(28, "No space left on device")
        return write_file(*arguments, **options)

    monkeypatch.setattr(_lake_rows, "write_file", failing)
    with pytest.raises(LakeError) as failed:
        shared.lake.settle(Manifest(shared.documents))

    assert len(failed.value.written) == len(_files(shared, "parquet")) == 2
    shared.lake.unstage(failed.value.written)
    assert _files(shared, "parquet") == []
