"""Filters of ids: what is there is always found, and few files are opened in vain."""

import hashlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.adapters import Manifest
from sidelight.adapters._lake_file import LakeFile
from sidelight.adapters._lake_ids import APART, FILTERS, IdIndex, filter_of, hashes, noted
from sidelight.logger._journal import Document


def _id(number: int) -> str:
    return hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest()


def _file(name: str, ids: str) -> LakeFile:
    return LakeFile(
        path=name,
        deployment="prod/flights",
        table="inferences",
        rows=1,
        bytes=1,
        min_us=0,
        max_us=0,
        columns=(),
        partition=0,
        first=0,
        last=0,
        max_revision=0,
        versions=None,
        ids=ids,
    )


def _files(documents: Any, ids: list[list[str]]) -> list[LakeFile]:
    files = []
    for number, some in enumerate(ids):
        text, beside = noted(f"f{number}", filter_of(hashes(pa.array(some, pa.string()))))
        documents.put(beside)
        files.append(_file(f"f{number}", text))
    return files


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.text(max_size=40), max_size=20), min_size=9, max_size=12), st.integers(0)
)
def test_a_file_that_holds_an_id_is_always_among_the_candidates(
    samples: SimpleNamespace, ids: list[list[str]], chosen: int
) -> None:
    texts = [[text.encode("utf-8", "replace").decode() for text in some] for some in ids]
    documents = samples.MemoryDocuments()
    files = _files(documents, texts)
    everything = sorted({text for some in texts for text in some})
    if not everything:
        return

    wanted = everything[chosen % len(everything)]
    found = {file.path for file in IdIndex(documents).candidates([wanted], files)}

    assert {f"f{number}" for number, some in enumerate(texts) if wanted in some} <= found


def test_few_files_are_opened_in_vain(samples: SimpleNamespace) -> None:
    documents = samples.MemoryDocuments()
    ids = [[_id(1000 * number + place) for place in range(1000)] for number in range(100)]
    files = _files(documents, ids)
    index = IdIndex(documents)

    n_candidates = [len(index.candidates([_id(-number)], files)) for number in range(1, 101)]
    found = [index.candidates([_id(1000 * number + 7)], files) for number in range(100)]

    # 10,000 questions; 1 in 160 at most, with room for chance.
    assert sum(n_candidates) < 100
    assert all(files[number] in items for number, items in enumerate(found))
    assert len(documents.find(FILTERS, limit=1000)) == 100


def test_ids_hash_alike_one_by_one_and_together() -> None:
    ids = [_id(number) for number in range(50)]
    together = hashes(pa.array([*ids, "odd"], pa.string()))
    sliced = hashes(pa.array(["odd", *ids], pa.string()).slice(1))
    chunked = hashes(pa.chunked_array([ids[:20], [], ids[20:]], pa.string()))

    assert np.array_equal(together[:50], sliced)
    assert np.array_equal(sliced, chunked)
    assert len(np.unique(sliced)) == 50
    assert len(hashes(pa.chunked_array([], pa.string()))) == 0


def test_a_file_whose_filter_is_not_there_is_opened(samples: SimpleNamespace) -> None:
    documents = samples.MemoryDocuments()
    files = _files(documents, [[_id(number)] for number in range(20)])
    odd = [_file("gone", APART), _file("old", "")]

    found = IdIndex(documents).candidates([_id(3)], [*files, *odd])

    assert {file.path for file in found} >= {"f3", "gone", "old"}
    assert len(found) < 6


def test_filters_come_and_go_with_their_files(store: Any, samples: SimpleNamespace) -> None:
    for first in range(0, 12_000, 3000):
        rows = [samples.row(_id(number), minutes=1) for number in range(first, first + 3000)]
        store.add(samples.batch(rows))
    apart = {key for _, key, _ in store.documents.find(FILTERS)}
    files = {file.path for file in Manifest(store.documents).files("inferences")}

    compaction = store.lake.compact(Manifest(store.documents), min_files=2)
    store.documents.put([*compaction.documents, *store.lake.remove(compaction.obsolete)])

    assert apart == files
    assert {key for _, key, _ in store.documents.find(FILTERS)} == set(compaction.written)
    index = IdIndex(store.documents)
    merged = Manifest(store.documents).files("inferences") * 9
    assert index.candidates([_id(11_999)], merged) == merged
    assert index.candidates(["unknown"], merged) == []


def test_documents_of_filters_are_small() -> None:
    text, beside = noted("f", filter_of(np.arange(300, dtype=np.uint64)))

    assert len(text) < 700
    assert beside == []
    assert noted("f", bytes(513))[1] == [
        Document(collection=FILTERS, key="f", value={"filter": "A" * 684})
    ]
