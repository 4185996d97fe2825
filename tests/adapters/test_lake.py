"""The lake: visible through the manifest only, whole or not there, the same when done again."""

import json
import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidelight.adapters import Compaction, Lake, LakeError, LakeFile, Manifest, Scores, _lake_rows
from sidelight.adapters._embedded import EmbeddedJournals
from sidelight.adapters._embedded_documents import EmbeddedDocuments
from sidelight.adapters._lake_file import quote_folder
from sidelight.adapters._lake_writing import write_file
from sidelight.logger._journal import Commit

ODD = [
    "..",
    ".",
    "a/b",
    "a b",
    "ünï/çode",
    "x'; --",
    'q"',
    "a\nb",
    "a\x00b",
    "*?[z]",
    "=",
    "",
    "é" * 99,
]


def parquet_files(folder: Path) -> set[Path]:
    return set((folder / "lake").rglob("*.parquet"))


def test_a_staged_file_is_seen_after_its_commit_and_not_before(
    store: Any, samples: SimpleNamespace
) -> None:
    staged = store.lake.stage([samples.batch([samples.row("a")])], first=0, last=0)
    before = store.ids()

    store.documents.put(staged)

    assert before == []
    assert store.ids() == ["a"]


def test_columns_keep_their_types_and_the_file_its_layout(
    store: Any, samples: SimpleNamespace
) -> None:
    values = {
        "features.b": b"\x00\xff",
        "features.l": [1.0, 2.0],
        "features.n": None,
        "outputs.y": 1,
    }
    types = {"features.l": pa.list_(pa.float32()), "features.n": pa.null(), "outputs.y": pa.uint8()}
    batch = samples.batch([samples.row("a", **values)], types=types, layout={"protocol": "v1"})
    (document,) = store.add(batch)

    table = pq.read_table(store.folder / "lake" / document.key, partitioning=None)

    assert table.schema.remove_metadata() == batch.records.schema.remove_metadata()
    assert json.loads(table.schema.metadata[b"sidelight.layout"]) == {"protocol": "v1"}
    assert list(document.value["columns"]) == batch.records.schema.names


def test_the_manifest_entry_says_what_the_file_holds(store: Any, samples: SimpleNamespace) -> None:
    rows = [samples.row("a", 5, version="v2"), samples.row("b", 1, version=None, revision=2)]
    (document,) = store.lake.stage([samples.batch(rows)], first=17, last=23, partition=3)
    value = dict(document.value)

    assert (document.collection, document.deployment) == ("lake_files", "prod/flights")
    assert document.key.startswith(
        "inferences/prod%2Fflights/2013-01-01/3-000000000017-000000000023-"
    )
    assert value.pop("bytes") == (store.folder / "lake" / document.key).stat().st_size
    assert value.pop("columns")["time"] == "timestamp[us, tz=UTC]"
    assert len(value.pop("layout")) == 16
    assert value.pop("ids")
    assert value == {
        "table": "inferences",
        "deployment": "prod/flights",
        "rows": 2,
        "min_time": "2013-01-01T00:01:00.000000Z",
        "max_time": "2013-01-01T00:05:00.000000Z",
        "partition": 3,
        "first": 17,
        "last": 23,
        "max_revision": 2,
        "versions": ["v2", None],
    }
    assert LakeFile.from_value(document.key, document.value).document(document.order) == document


def test_work_done_again_writes_the_same_names(store: Any, samples: SimpleNamespace) -> None:
    batches = [
        samples.batch([samples.row("a", **{"features.x": 1.0})]),
        samples.batch([samples.row("b", **{"features.x": "one"})]),
        samples.batch([samples.row("c", **{"features.x": 1.0})], deployment="prod/other"),
        samples.batch([samples.row("d", **{"features.x": 1.0})], layout={"protocol": "v1"}),
        samples.batch([samples.row("e", **{"features.x": 2.0})]),
    ]
    first = store.lake.stage(batches, first=0, last=4)
    files = parquet_files(store.folder)

    again = store.lake.stage(batches, first=0, last=4)

    assert [item.key for item in first] == [item.key for item in again]
    assert parquet_files(store.folder) == files
    assert len(files) == 4  # a and e share deployment, layout and types


def test_a_sweep_removes_what_no_entry_names(store: Any, samples: SimpleNamespace) -> None:
    store.add(samples.batch([samples.row("a")]))
    kept = parquet_files(store.folder)
    store.lake.stage([samples.batch([samples.row("b")])], first=9, last=9)
    torn = next(iter(kept)).with_suffix(".tmp")
    torn.write_bytes(b"PAR1 half a fi")

    forgotten = store.lake.sweep(Manifest(store.documents))

    assert forgotten == []
    assert parquet_files(store.folder) == kept
    assert not torn.exists()
    assert store.ids() == ["a"]


def test_a_sweep_leaves_what_the_other_process_is_about_to_commit(
    store: Any, samples: SimpleNamespace
) -> None:
    batch = samples.batch([samples.row("a")])
    scores = Scores.of(batch, outlier_score=[1.0], p_value=[0.5], outlier=[False])
    many = [samples.batch([samples.row("b")], deployment=f"prod/m{n}") for n in range(9)]
    shared = [Scores.of(of, outlier_score=[1.0], p_value=[0.5], outlier=[False]) for of in many]
    rows = {item.key for item in store.lake.stage([batch], first=0, last=0)}
    own = {item.key for item in store.lake.stage_scores([scores], first=0, last=0)}
    hot = {item.key for item in store.lake.stage_scores(shared, first=1, last=1)}
    present = set(store.lake._present())
    assert present == (rows | own | hot) & present
    assert len(present) == 3

    store.documents.put(store.lake.sweep(Manifest(store.documents)))
    assert set(store.lake._present()) == present - rows
    store.lake.stage([batch], first=0, last=0)
    store.lake.sweep_scores(Manifest(store.documents))
    assert set(store.lake._present()) == present & rows


def test_scores_that_a_former_version_left_go_with_the_first_start(
    store: Any, samples: SimpleNamespace
) -> None:
    batch = samples.batch([samples.row("a")])
    scores = Scores.of(batch, outlier_score=[1.0], p_value=[0.5], outlier=[False])
    (entry,) = store.lake.stage_scores([scores], first=0, last=0)
    former = store.folder / "lake" / entry.key.replace("staged-", "")
    (store.folder / "lake" / entry.key).rename(former)

    store.lake.sweep_scores(Manifest(store.documents))
    assert former.exists()
    store.lake.sweep(Manifest(store.documents))
    assert not former.exists()


def test_the_sweep_of_scores_leaves_what_is_visible_or_was_hidden_a_moment_ago(
    store: Any, samples: SimpleNamespace
) -> None:
    for number in range(3):
        batch = samples.batch([samples.row(f"i{number}")])
        scores = Scores.of(batch, outlier_score=[1.0], p_value=[0.5], outlier=[False])
        store.documents.put(store.lake.stage_scores([scores], first=number, last=number))
        if number == 1:
            merged = store.lake.compact(Manifest(store.documents), min_files=2)
            store.documents.put(merged.documents)
    before = set(store.lake._present())

    # Queries may still hold the two that were merged; they are the consumer's.
    store.lake.sweep_scores(Manifest(store.documents))
    assert set(store.lake._present()) == before
    store.documents.put(store.lake.sweep(Manifest(store.documents)))
    assert set(store.lake._present()) == before - set(merged.obsolete)
    assert len(before) == 4


def test_an_empty_lake_can_be_swept_and_compacted(store: Any) -> None:
    manifest = Manifest(store.documents)

    assert store.lake.sweep(manifest) == []
    assert store.lake.compact(manifest) is None
    assert store.lake.stage([], first=0, last=0) == []


def test_a_disk_that_refuses_is_a_lake_error(tmp_path: Path, samples: SimpleNamespace) -> None:
    (tmp_path / "lake").write_text("a file where the folder should be")

    with pytest.raises(LakeError, match="cannot write inferences/prod%2Fflights"):
        Lake(tmp_path).stage([samples.batch([samples.row("a")])], first=0, last=0)


@pytest.mark.parametrize("deployment", ODD)
def test_any_name_of_a_deployment_stays_in_its_folder(
    store: Any, samples: SimpleNamespace, deployment: str
) -> None:
    (document,) = store.add(samples.batch([samples.row("a")], deployment=deployment))
    folder = quote_folder(deployment)

    assert "/" not in folder
    assert folder not in {"", ".", ".."}
    assert (store.folder / "lake" / document.key).is_file()
    assert store.ids(deployment=deployment) == ["a"]
    assert store.queries.get("a").deployment == deployment


def test_columns_of_one_name_are_numbered(store: Any, samples: SimpleNamespace) -> None:
    batch = samples.batch([samples.row("a", **{"features.x": 1, "features.z": 2})])
    renamed = batch.records.rename_columns([*batch.records.schema.names[:-1], "features.x"])
    twice = type(batch).build(renamed, deployment="prod/flights", layout={})

    store.add(twice)

    assert store.queries.get("a").rows[0].features == {"x": 1, "x (2)": 2}


def test_scores_that_are_not_finite_are_none(store: Any, samples: SimpleNamespace) -> None:
    batch = samples.batch([samples.row("a"), samples.row("b", 1)])
    store.add(batch)
    scores = Scores.of(
        batch, outlier_score=[np.nan, 3.5], p_value=[np.nan, 0.01], outlier=[False, True]
    )

    store.documents.put(store.lake.stage_scores([scores], first=0, last=0))

    assert [item.rows[0].outlier_score for item in store.queries.find(order="time")[0]] == [
        None,
        3.5,
    ]
    assert store.ids(where="outlier_score > 3") == ["b"]
    assert store.ids(where="outlier_score is null") == ["a"]


def compacted(store: Any, **options: Any) -> list[Compaction]:
    done: list[Compaction] = []
    while (compaction := store.lake.compact(Manifest(store.documents), **options)) is not None:
        store.documents.put(compaction.documents)
        done.append(compaction)
    return done


def test_compaction_waits_for_enough_files_of_one_kind(
    store: Any, samples: SimpleNamespace
) -> None:
    for number in range(4):
        kind = {"features.x": 1.0} if number % 2 else {"features.x": "one"}
        store.add(samples.batch([samples.row(f"i{number}", number, **kind)]))

    assert compacted(store, min_files=3) == []
    assert [len(item.obsolete) for item in compacted(store, min_files=2)] == [2, 2]


def test_compaction_stops_at_the_target(store: Any, samples: SimpleNamespace) -> None:
    for number in range(10):
        rows = [samples.row(f"{number}-{index}", number) for index in range(3)]
        store.add(samples.batch(rows))

    done = compacted(store, min_files=2, target_rows=10)

    assert {item.rows for item in done} <= {6, 9}
    assert len(store.all_ids(limit=7)) == 30


def test_replaced_files_are_read_until_they_are_removed(
    store: Any, samples: SimpleNamespace
) -> None:
    for number in range(3):
        store.add(samples.batch([samples.row(f"i{number}", number)]))
    reader = samples.Store(store.folder, store.documents)
    assert reader.ids() == ["i2", "i1", "i0"]
    (compaction,) = compacted(store, min_files=2)
    assert len(parquet_files(store.folder)) == 4

    store.documents.put(store.lake.remove(compaction.obsolete))

    assert len(parquet_files(store.folder)) == 1
    assert reader.ids() == ["i2", "i1", "i0"]
    assert len(store.documents.find("lake_files")) == 1
    reader.close()


def test_a_sweep_finishes_what_a_compaction_left(store: Any, samples: SimpleNamespace) -> None:
    for number in range(3):
        store.add(samples.batch([samples.row(f"i{number}", number)]))
    compacted(store, min_files=2)

    store.documents.put(store.lake.sweep(Manifest(store.documents)))

    assert len(parquet_files(store.folder)) == 1
    assert len(store.documents.find("lake_files")) == 1
    assert store.ids() == ["i2", "i1", "i0"]


QUESTIONS: list[dict[str, Any]] = [
    {},
    {"order": "time", "limit": 2},
    {"deployment": "prod/a"},
    {"version": "v1", "limit": 3},
    {"from_": "2013-01-01T00:02:00Z", "to": "2013-01-01T00:04:00Z"},
    {"where": "features.x > 0 or outputs.y is null"},
    {"where": "features.x is null and status = 200"},
]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    drawn=st.lists(
        st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.integers(0, 8),
                    "minutes": st.integers(0, 5),
                    "revision": st.integers(0, 2),
                    "n_rows": st.integers(1, 3),
                    "x": st.none() | st.sampled_from([-1.0, 2.0, float("nan")]),
                    "version": st.sampled_from(["v1", "v2", None]),
                }
            ),
            min_size=1,
            max_size=4,
        ),
        min_size=2,
        max_size=8,
    ),
    shape=st.lists(st.integers(0, 3), min_size=8, max_size=8),
    min_files=st.integers(2, 3),
    target_rows=st.integers(4, 40),
)
def test_compaction_changes_no_answer(
    tmp_path_factory: pytest.TempPathFactory,
    samples: SimpleNamespace,
    drawn: list[list[dict[str, Any]]],
    shape: list[int],
    min_files: int,
    target_rows: int,
) -> None:
    store = samples.Store(tmp_path_factory.mktemp("lake"))
    seen: set[tuple[str, int]] = set()
    for kind, items in zip(shape, drawn, strict=False):
        rows = []
        for item in items:
            key = (f"i{item['name']}", item["revision"])
            if key in seen:
                continue
            seen.add(key)
            value: Any = str(item["x"]) if kind == 1 else item["x"]
            extra = {"features.x": value} if kind < 2 else {"outputs.y": item["x"]}
            rows += [
                samples.row(
                    key[0],
                    item["minutes"],
                    row=number,
                    revision=key[1],
                    status=200,
                    version=item["version"],
                    **extra,
                )
                for number in range(item["n_rows"])
            ]
        if rows:
            types = {
                "features.x": pa.string() if kind == 1 else pa.float64(),
                "outputs.y": pa.float64(),
            }
            # An inference belongs to one deployment.
            store.add(samples.batch(rows, types=types, deployment="prod/a"))
    before = [answers(store, question) for question in QUESTIONS]

    done = compacted(store, min_files=min_files, target_rows=target_rows)
    for compaction in done:
        store.documents.put(store.lake.remove(compaction.obsolete))

    assert [answers(store, question) for question in QUESTIONS] == before
    store.close()


def answers(store: Any, question: dict[str, Any]) -> object:
    try:
        ids = store.all_ids(**question)
    except ValueError as error:
        return str(error)
    counted = {name: value for name, value in question.items() if name not in {"order", "limit"}}
    assert store.queries.count(**counted) == len(ids) == len(set(ids))
    return [store.queries.get(name) for name in ids]


def test_the_manifest_reads_what_is_new_and_everything_now_and_then(
    store: Any, samples: SimpleNamespace
) -> None:
    now = [0.0]
    manifest = Manifest(store.documents, clock=lambda: now[0])
    store.add(samples.batch([samples.row("a")]))
    assert len(manifest.files("inferences")) == 1
    (late,) = store.lake.stage([samples.batch([samples.row("b")])], first=7, last=7)
    late = LakeFile.from_value(late.key, late.value).document("2000-01-01T00:00:00.000000Z")
    store.documents.put([late])

    store.add(samples.batch([samples.row("c")]))
    soon = len(manifest.files("inferences"))
    now[0] = 61.0

    assert (soon, len(manifest.files("inferences"))) == (2, 3)


def test_more_entries_than_a_page_are_read(store: Any, samples: SimpleNamespace) -> None:
    (document,) = store.lake.stage([samples.batch([samples.row("a")])], first=0, last=0)
    file = LakeFile.from_value(document.key, document.value)
    for number in range(2_345):
        values = {name: getattr(file, name) for name in file.__slots__} | {"path": f"p{number}"}
        store.documents.put([LakeFile(**values).document(f"2013-01-01T00:00:00.{number:06d}Z")])

    assert len(Manifest(store.documents).files("inferences", deployment="prod/flights")) == 2_345


def test_files_and_positions_move_together_on_the_embedded_engine(
    tmp_path: Path, samples: SimpleNamespace
) -> None:
    journals = EmbeddedJournals(tmp_path, groups=("store",))
    documents = EmbeddedDocuments(tmp_path)
    store = samples.Store(tmp_path, documents)
    batch = samples.batch([samples.row("a", **{"features.carrier": "AA"})])
    journals.commit(
        Commit(
            group="decode", journal="events", appended=[("rows", batch.deployment, batch.to_ipc())]
        )
    )
    (piece,) = journals.read_inferences("store", max_records=10, max_bytes=1 << 20)
    batches = [type(batch).from_ipc(record.payload) for record in piece.records]

    entries = store.lake.stage(batches, first=piece.first, last=piece.last)
    journals.commit(
        Commit(
            group="store",
            journal="inferences",
            positions={piece.partition: piece.last + 1},
            documents=[*entries, samples.labelled("prod/flights", "request-a", 0, {"late": True})],
        )
    )

    assert journals.read_inferences("store", max_records=10, max_bytes=1 << 20) == []
    found = store.queries.find(where="features.carrier = 'AA' and labels.late = true")[0]
    assert [item.rows[0].labels for item in found] == [{"late": True}]
    store.close()
    documents.close()
    journals.close()


def test_too_many_versions_are_not_listed_and_still_found(
    store: Any, samples: SimpleNamespace
) -> None:
    rows = [samples.row(f"i{n:02d}", n, version=f"v{n}") for n in range(40)]
    (document,) = store.add(samples.batch(rows))
    store.add(samples.batch([samples.row("last", 99, version="v7")]))

    compacted(store, min_files=2)

    assert document.value["versions"] is None
    assert store.ids(version="v7") == ["last", "i07"]


def test_a_file_of_several_row_groups_is_read_where_the_row_is(
    store: Any, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidelight.adapters._lake_writing.ROW_GROUP_ROWS", 4)
    for number in range(3):
        rows = [
            samples.row(f"i{number}-{n}", number, revision=n % 2, **{"features.x": n})
            for n in range(7)
        ]
        store.add(samples.batch(rows))
    (compaction,) = compacted(store, min_files=2)
    (path,) = [item.key for item in compaction.documents if "removed" not in (item.value or {})]

    groups = pq.ParquetFile(store.folder / "lake" / path).metadata.num_row_groups

    assert groups == 6
    assert store.queries.get("i1-5").rows[0].features == {"x": 5}
    assert [item.rows[0].features["x"] for item in store.queries.find(limit=3)[0]] == [6, 5, 4]


def test_a_merge_of_damaged_files_changes_nothing(store: Any, samples: SimpleNamespace) -> None:
    keys = [store.add(samples.batch([samples.row(f"i{n}", n)]))[0].key for n in range(2)]
    (store.folder / "lake" / keys[1]).write_bytes(b"damaged")
    files = parquet_files(store.folder)

    with pytest.raises(LakeError, match="cannot merge"):
        store.lake.compact(Manifest(store.documents), min_files=2)

    assert parquet_files(store.folder) == files
    assert list((store.folder / "lake").rglob("*.tmp")) == []


def test_a_sweep_says_which_files_are_missing(
    store: Any, samples: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    (document,) = store.add(samples.batch([samples.row("a")]))
    (store.folder / "lake" / document.key).unlink()

    assert store.lake.sweep(Manifest(store.documents)) == []
    assert [record.message for record in caplog.records] == ["lake file is missing"]


def test_files_are_read_directly_with_changing_columns(
    store: Any, samples: SimpleNamespace
) -> None:
    store.add(samples.batch([samples.row("a", 1, **{"features.x": 1})]))
    store.add(samples.batch([samples.row("b", 2, **{"features.y": "u", "features.x": 2.5})]))
    pattern = store.folder / "lake/inferences/prod%2Fflights/2013-01-*/*.parquet"

    with duckdb.connect() as connection:
        rows = connection.execute(
            'SELECT id, "features.x", "features.y" FROM read_parquet(?, union_by_name = true)'
            " ORDER BY id",
            [str(pattern)],
        ).fetchall()

    assert rows == [("a", 1.0, None), ("b", 2.5, "u")]


def _failing(number: int) -> Any:
    """Return what writes files until there is no room, at a call counted from one."""
    calls = [0]

    def call(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == number:
            raise OSError(28, "No space left on device")
        return write_file(*arguments, **options)

    return call


@pytest.mark.parametrize("table", ["inferences", "scores"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_staging_that_fails_half_way_says_what_it_wrote(
    store: Any,
    samples: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    table: str,
) -> None:
    # A file each for two days of the one and one of the other.
    batches = [
        samples.batch([samples.row("a"), samples.row("b", minutes=1500)]),
        samples.batch([samples.row("c")], deployment="prod/other"),
    ]
    staging = partial(store.lake.stage, batches, first=0, last=2)
    if table == "scores":
        scores = [
            Scores.of(
                batch,
                outlier_score=[1.0] * len(batch),
                p_value=[0.5] * len(batch),
                outlier=[False] * len(batch),
            )
            for batch in batches
        ]
        staging = partial(store.lake.stage_scores, scores, first=0, last=2)
    monkeypatch.setattr(_lake_rows, "write_file", _failing(number))

    with pytest.raises(LakeError) as failed:
        staging()

    assert len(failed.value.written) == number - 1
    assert set(store.lake._present()) == set(failed.value.written)
    store.lake.unstage(failed.value.written)
    assert parquet_files(store.folder) == set()


def test_a_sweep_leaves_copies_that_are_being_fetched(store: Any) -> None:
    names = ("inferences/p/x.parquet", "scores/p/y-staged-z.parquet")
    copies = [store.folder / "lake" / f"{name}.{'0a' * 16}.tmp" for name in names]
    for copy in copies:
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(b"half")

    def sweep() -> list[bool]:
        store.lake.sweep(Manifest(store.documents))
        store.lake.sweep_scores(Manifest(store.documents))
        store.lake.sweep_copies()
        return [copy.exists() for copy in copies]

    assert sweep() == [True, True]
    for copy in copies:
        os.utime(copy, (0, 0))
    store.lake.sweep_copies()
    assert [copy.exists() for copy in copies] == [False, False]


@pytest.mark.parametrize("name", ["inferences/p/x.parquet", "scores/p/y-staged-z.parquet"])
def test_a_sweep_removes_copies_that_nobody_fetches_any_more(store: Any, name: str) -> None:
    copy = store.folder / "lake" / f"{name}.{'0a' * 16}.tmp"
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(b"half")
    os.utime(copy, (0, 0))

    store.lake.sweep(Manifest(store.documents))
    store.lake.sweep_scores(Manifest(store.documents))

    assert not copy.exists()
