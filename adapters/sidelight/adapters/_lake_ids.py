"""Which files of the lake may hold an inference: a small filter of the ids of each file.

Where deployments are many there are thousands of files, and to ask the bloom filters inside each
of them takes a second. These stand in the database beside the manifest; all of one size are asked
at once. They are bloom filters of four positions with 12 to 24 bits for an id: at most 1 file in
160 is opened in vain.
"""

import base64
import hashlib
import threading
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sidelight.adapters._lake_file import LakeFile
from sidelight.logger._journal import Document, Documents

FILTERS: Final = "lake_ids"
"""Collection of the filters that are too large for a manifest entry, by the path of the file."""

APART: Final = "+"
"""What a manifest entry says of a filter that stands apart."""

_BITS_AN_ID: Final = 12
_POSITIONS: Final = 4
_LEAST_BITS: Final = 64
_MOST_INLINE_BYTES: Final = 512
# Inference ids have this length; others are spelled out one by one.
_ID_BYTES: Final = 32
_WORDS: Final = _ID_BYTES // 8
_FACTORS: Final = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5], np.uint64
)
# Few files are opened faster than their filters are found.
_FEW_FILES: Final = 8

Hashes = NDArray[np.uint64]


def hashes(ids: pa.ChunkedArray | pa.Array) -> Hashes:
    """Return 64 bits for each id, shape (n_ids,)."""
    chunks = ids.chunks if isinstance(ids, pa.ChunkedArray) else [ids]
    found = [_hashes(chunk) for chunk in chunks if len(chunk)]
    return np.concatenate(found) if found else np.empty(0, np.uint64)


def filter_of(found: Hashes) -> bytes:
    """Return the filter of these ids; each counts once."""
    unique = np.unique(found)
    n_bits = _LEAST_BITS
    while n_bits < _BITS_AN_ID * len(unique):
        n_bits *= 2
    bits = np.zeros(n_bits, np.bool_)
    for position in _positions(unique, n_bits):
        bits[position] = True
    return np.packbits(bits, bitorder="little").tobytes()


def noted(path: str, content: bytes) -> tuple[str, list[Document]]:
    """Return what a manifest entry says of a filter, and what is published beside it."""
    text = base64.b64encode(content).decode()
    if len(content) <= _MOST_INLINE_BYTES:
        return text, []
    return APART, [Document(collection=FILTERS, key=path, value={"filter": text})]


class IdIndex:
    """Finds files that may hold inferences, for any number of threads.

    Parameters
    ----------
    documents : Documents
        Where filters stand that are apart.

    """

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._lock = threading.Lock()
        self._filters: dict[str, NDArray[np.uint8]] = {}

    def candidates(self, ids: Collection[str], files: Sequence[LakeFile]) -> list[LakeFile]:
        """Return the files that may hold one of the ids; parts of hot files are all returned."""
        cold = [file for file in files if file.hot is None and file.ids]
        if len(cold) <= _FEW_FILES:
            return list(files)
        wanted = hashes(pa.array(sorted(ids), pa.string()))
        with self._lock:
            self._learn(cold)
            known = [(file, self._filters.get(file.path)) for file in cold]
        passed = self._passed(wanted, known)
        return [file for file in files if file.hot is not None or not file.ids] + passed

    def _learn(self, files: list[LakeFile]) -> None:
        paths = {file.path for file in files}
        if len(self._filters) > 2 * len(paths) + _FEW_FILES:
            self._filters = {path: of for path, of in self._filters.items() if path in paths}
        for file in files:
            if file.path not in self._filters:
                text = file.ids
                if text == APART:
                    value = self._documents.get(FILTERS, file.path)
                    if value is None:
                        continue  # its file was replaced a moment ago
                    text = value["filter"]
                content = np.frombuffer(base64.b64decode(text), np.uint8)
                self._filters[file.path] = content

    def _passed(
        self, wanted: Hashes, known: Iterable[tuple[LakeFile, NDArray[np.uint8] | None]]
    ) -> list[LakeFile]:
        by_size: dict[int, list[tuple[LakeFile, NDArray[np.uint8]]]] = {}
        passed: list[LakeFile] = []
        for file, content in known:
            if content is None:
                passed.append(file)
            else:
                by_size.setdefault(len(content), []).append((file, content))
        for size, items in by_size.items():
            positions = _positions(wanted, 8 * size)
            places, bits = positions >> 3, np.uint8(1) << (positions & 7).astype(np.uint8)
            for file, content in items:
                if ((content[places] & bits) != 0).all(axis=0).any():
                    passed.append(file)
        return passed


def _positions(found: Hashes, n_bits: int) -> NDArray[np.int64]:
    """Return the bits of each id, shape (4, n_ids); ``n_bits`` is a power of two."""
    step = (found >> np.uint64(32)) | np.uint64(1)
    rounds = np.arange(_POSITIONS, dtype=np.uint64)[:, None]
    spots = (found + rounds * step) & np.uint64(n_bits - 1)
    return spots.astype(np.int64)


def _hashes(ids: Any) -> Hashes:
    offsets = np.frombuffer(ids.buffers()[1], np.int32)[ids.offset : ids.offset + len(ids) + 1]
    if not (np.diff(offsets) == _ID_BYTES).all():
        return np.fromiter((_spelled(text) for text in ids.to_pylist()), np.uint64, len(ids))
    data = np.frombuffer(ids.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    words = data.reshape(-1, _ID_BYTES).copy().view("<u8")
    return _mixed(words)


def _spelled(text: str) -> int:
    content = text.encode("utf-8", "surrogatepass")
    if len(content) == _ID_BYTES:
        return int(_mixed(np.frombuffer(content, "<u8").reshape(1, _WORDS))[0])
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _mixed(words: NDArray[np.uint64]) -> Hashes:
    # Every word is spread over all bits before they are put together.
    mixed = words * _FACTORS
    mixed ^= mixed >> np.uint64(29)
    mixed *= _FACTORS[::-1]
    together: Hashes = np.bitwise_xor.reduce(mixed, axis=1)
    together ^= together >> np.uint64(32)
    together *= _FACTORS[0]
    return together
