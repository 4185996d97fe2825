"""Files of the lake: what is compressed, and how much time that is given."""

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sidelight.adapters import Manifest
from sidelight.adapters import _lake as lake


def test_a_torrent_is_written_with_its_numbers_as_they_are(
    store: Any, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake, "_TORRENT_ROWS", 3)
    types = {"features.f": pa.float32(), "features.n": pa.int64(), "outputs.y": pa.float64()}
    values = {"features.f": 0.5, "features.n": 7, "outputs.y": -0.25, "features.s": "text"}
    batch = samples.batch([samples.row(name, **values) for name in "abc"], types=types)
    (document, *_) = store.add(batch)
    path = store.folder / "lake" / document.key

    columns = pq.read_metadata(path).row_group(0).to_dict()["columns"]

    assert {of["path_in_schema"] for of in columns if of["compression"] == "UNCOMPRESSED"} == {
        *("features.f", "outputs.y", "latency_ms")
    }
    assert {of["compression"] for of in columns} == {"UNCOMPRESSED", "ZSTD"}
    assert pq.read_table(path, partitioning=None).to_pylist() == batch.records.to_pylist()
    assert sorted(store.ids()) == ["a", "b", "c"]


def test_what_torrents_left_is_compressed_when_it_is_merged(
    store: Any, samples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake, "_TORRENT_ROWS", 1)
    types = {"features.f": pa.float64()}
    for name in "abcd":
        store.add(samples.batch([samples.row(name, **{"features.f": 0.5})], types=types))

    manifest = Manifest(store.documents)
    compaction = store.lake.compact(manifest, min_files=2)
    store.documents.put(compaction.documents)

    (file,) = manifest.files("inferences")
    columns = pq.read_metadata(store.folder / "lake" / file.path).row_group(0).to_dict()["columns"]
    assert {of["compression"] for of in columns} == {"ZSTD"}
    assert sorted(store.ids()) == ["a", "b", "c", "d"]
