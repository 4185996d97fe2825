"""What the detection stage keeps of each deployment between commits, and under which keys."""

from collections.abc import Iterable
from dataclasses import replace

import pyarrow as pa

from sidelight.detectors import STATE_PARTS, DeploymentMonitor
from sidelight.logger import Journals
from sidelight.service._stage import DETECTION
from sidelight.service._watched import Watched

# Beside the parts of the monitor. "monitor" is a whole snapshot, as it was stored before there
# were parts.
_OTHERS = ("monitor", "reference", "token")


def stored_watched(journals: Journals, name: str) -> Watched | None:
    """Return a deployment as it is committed; None when nothing is.

    Raises
    ------
    SnapshotError
        If the state is damaged.

    """
    keys = _keys(name)
    by_key = journals.state(DETECTION, keys.values())
    found = {part: by_key[key] for part, key in keys.items() if key in by_key}
    reference = found.get("reference")
    if "base" in found:
        monitor = DeploymentMonitor.restore_parts(found, reference)
    elif "monitor" in found:
        monitor = DeploymentMonitor.restore(found["monitor"], reference)
    else:
        return None
    watched = Watched(monitor=monitor, token=found["token"].decode())
    for key in _batch_keys(journals, name):
        with pa.ipc.open_stream(pa.py_buffer(journals.state(DETECTION, [key])[key])) as reader:
            watched.collected.append(reader.read_next_batch())
    watched.note_committed()
    if "base" not in found:
        watched.stored_rows = None
    return watched


def changed_state(name: str, watched: Watched) -> dict[bytes, bytes | None]:
    """Return the keys to be committed of what changed since ``note_committed``."""
    state: dict[bytes, bytes | None] = {}
    if watched.stored_rows is None:
        state |= {_key("monitor", name): None, _key("token", name): watched.token.encode()}
    for part, data in watched.monitor.changed_parts(watched.stored_rows).items():
        state[_key(part, name)] = data
    if watched.digest != watched.stored_digest:
        # Immutable and larger than all that moves: written once.
        state[_key("reference", name)] = watched.monitor.reference_bytes()
    for number in range(watched.stored_batches, len(watched.collected)):
        state[_batch_key(name, number)] = _ipc(watched.collected[number])
    return state


def replacing_state(journals: Journals, name: str, watched: Watched) -> dict[bytes, bytes | None]:
    """Return the keys that put a deployment in the place of whatever is committed."""
    whole = replace(watched, stored_rows=None, stored_digest="", stored_batches=0)
    return forgetting_state(journals, name) | changed_state(name, whole)


def forgetting_state(journals: Journals, name: str) -> dict[bytes, bytes | None]:
    """Return the keys that delete what is committed of a deployment."""
    return dict.fromkeys([*_keys(name).values(), *_batch_keys(journals, name)])


def forgotten_batches(name: str, numbers: Iterable[int]) -> dict[bytes, bytes | None]:
    """Return the keys that delete batches of a reference that was collected."""
    return dict.fromkeys(_batch_key(name, number) for number in numbers)


def _ipc(records: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, records.schema) as writer:
        writer.write_batch(records)
    return bytes(sink.getvalue())


def _keys(name: str) -> dict[str, bytes]:
    return {part: _key(part, name) for part in (*STATE_PARTS, *_OTHERS)}


def _key(part: str, name: str) -> bytes:
    return f"{part}|{name}".encode()


def _batch_keys(journals: Journals, name: str) -> list[bytes]:
    return [key for key, _ in journals.scan(DETECTION, _batch_prefix(name))]


def _batch_prefix(name: str) -> bytes:
    return f"rows|{name}|".encode()


def _batch_key(name: str, number: int) -> bytes:
    return _batch_prefix(name) + b"%08d" % number
