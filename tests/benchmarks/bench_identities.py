"""What it costs to remember identities for ever, and to ask for those that are new.

    python tests/benchmarks/bench_identities.py [IDENTITIES [IN A COMMIT]]

CPU time of this process for an identity, merges included, beside the same as a row each in SQLite
(a tenth of them: it takes long); the longest commit; bytes in memory and in ``state.db``.
"""

import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from sidelight.adapters import EmbeddedJournals
from sidelight.logger import Commit

VALUE = bytes(24)
OLD_VALUE = bytes(59)
SHOWN = 5


def _resident_mb() -> float:
    text = Path("/proc/self/status").read_text()
    return int(re.findall(r"RssAnon:\s+(\d+)", text)[0]) / 1024


def _digests(rng: np.random.Generator, number: int) -> list[bytes]:
    joined = rng.bytes(16 * number)
    return [joined[at : at + 16] for at in range(0, 16 * number, 16)]


def _rows(data: Path, total: int, step: int) -> tuple[float, float]:
    """Return CPU microseconds of a write and of a question, a row for each identity."""
    journals, rng = EmbeddedJournals(data), np.random.default_rng(1)
    asked = written = 0.0
    for _ in range(total // step):
        keys = [b"s" + digest for digest in _digests(rng, step)]
        begun = time.process_time()
        assert not journals.state("g", keys)
        between = time.process_time()
        journals.commit(Commit(group="g", journal="events", state=dict.fromkeys(keys, OLD_VALUE)))
        written += time.process_time() - between
        asked += between - begun
    journals.close()
    return 1e6 * written / total, 1e6 * asked / total


def _runs(data: Path, total: int, step: int) -> tuple[float, float]:
    """Print figures on the way; return microseconds as ``_rows`` does."""
    journals, rng = EmbeddedJournals(data), np.random.default_rng(1)
    asked = written = longest = 0.0
    before_mb = _resident_mb()
    done = 0
    for number in range(total // step):
        digests = _digests(rng, step)
        begun = time.process_time()
        assert not journals.remembered("g", digests)
        between = time.process_time()
        commit = Commit(group="g", journal="events", remembered=dict.fromkeys(digests, VALUE))
        journals.commit(commit)
        spent = time.process_time() - between
        longest, written, asked = max(longest, spent), written + spent, asked + between - begun
        done += step
        if (number + 1) % max(1, total // step // SHOWN) == 0:
            size = (data / "state.db").stat().st_size
            print(
                f"{done:12,}: written {1e6 * written / done:.2f} us, asked "
                f"{1e6 * asked / done:.2f} us; longest commit {1e3 * longest:.0f} ms; memory "
                f"{_resident_mb() - before_mb:.0f} MB, state.db {size / done:.0f} bytes each"
            )
    begun = time.process_time()
    assert len(journals.remembered("g", digests)) == step
    print(f"known ones: {1e6 * (time.process_time() - begun) / step:.1f} us each")
    journals.close()
    begun = time.process_time()
    journals = EmbeddedJournals(data)
    journals.remembered("g", digests)
    print(f"read at start: {time.process_time() - begun:.2f} s of CPU")
    journals.close()
    return 1e6 * written / total, 1e6 * asked / total


def main() -> None:
    """Print the figures and the ratio to rows."""
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 400_000
    step = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    with tempfile.TemporaryDirectory() as folder:
        written, asked = _runs(Path(folder), total, step)
    with tempfile.TemporaryDirectory() as folder:
        row_written, row_asked = _rows(Path(folder), total // 10, step)
    print(f"a row each, {total // 10:,}: written {row_written:.1f} us, asked {row_asked:.1f} us")
    print(f"ratio: {row_written / written:.1f} and {row_asked / asked:.1f}")


if __name__ == "__main__":
    main()
