"""One file form for references and snapshots: a JSON head and raw little-endian arrays."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors.errors import SnapshotError

_MAGIC = b"SLDET\x01\r\n"
# Kinds of elements that a stored array may have; objects never (they would be pickles).
_DTYPES = frozenset({"<f8", "<i8", "<u8", "<i4", "<u4", "<i2", "<u2", "|u1", "|b1"})


def pack(head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Write a head of JSON values and named arrays; equal input gives equal bytes."""
    forms = {}
    parts = []
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        forms[name] = [array.dtype.str, list(array.shape)]
        parts.append(array.tobytes())
    text = json.dumps({"head": head, "arrays": forms}, sort_keys=True, separators=(",", ":"))
    encoded = text.encode("utf-8", "surrogatepass")
    return b"".join([_MAGIC, len(encoded).to_bytes(8, "little"), encoded, *parts])


def unpack(data: bytes, what: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read what ``pack`` wrote; raise ``SnapshotError`` naming ``what`` otherwise."""
    start = len(_MAGIC) + 8
    if data[: len(_MAGIC)] != _MAGIC:
        raise SnapshotError(what, expected="bytes written by this version", got=data[:8])
    try:
        end = start + int.from_bytes(data[len(_MAGIC) : start], "little")
        content = json.loads(data[start:end].decode("utf-8", "surrogatepass"))
        forms = sorted(content["arrays"].items())
        arrays = {}
        for name, (code, shape) in forms:
            arrays[name] = _array(data, end, code, shape)
            end += arrays[name].nbytes
    except (KeyError, TypeError, ValueError) as error:
        raise SnapshotError(what, expected="a whole snapshot", got=type(error).__name__) from error
    if end != len(data):
        raise SnapshotError(what, expected=f"{end} bytes", got=len(data))
    return content["head"], arrays


def _array(data: bytes, offset: int, code: str, shape: list[int]) -> NDArray[Any]:
    if code not in _DTYPES or any(size < 0 for size in shape):
        raise ValueError(code)
    size = int(np.prod(shape, dtype=np.int64))
    flat = np.frombuffer(data, dtype=np.dtype(code), count=size, offset=offset)
    return flat.reshape(shape).astype(flat.dtype.newbyteorder("="))
