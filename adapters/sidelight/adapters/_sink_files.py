"""Files of captured events, in a local folder or in a bucket."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final, Literal, Protocol

import pyarrow as pa

from sidelight.adapters._sink_files_errors import reason_of
from sidelight.adapters._sink_files_lines import write_lines, write_zipped_lines
from sidelight.adapters._sink_files_local import LocalFiles
from sidelight.adapters._sink_files_parquet import write_parquet
from sidelight.adapters._sink_files_place import file_name, places
from sidelight.adapters._sink_files_s3 import S3Files, S3Settings
from sidelight.adapters._sink_worker import SinkWorker, WorkCancelled, unhurried
from sidelight.logger import CapturedEvent, Delivery, EmitterLimits

log = logging.getLogger(__name__)

FileFormat = Literal["parquet", "jsonl", "jsonl.gz"]

FILE_LIMITS: Final = EmitterLimits(batch_events=20_000, batch_bytes=16 << 20, linger_s=30.0)
"""Limits of an emitter for this sink: few large files. Events wait in its spool until then.

A batch is in memory while it is written, with up to 40 MiB for Parquet besides; more bytes make
larger files for more memory.
"""

_WRITERS: Final[Mapping[str, Callable[[Iterable[CapturedEvent], BinaryIO], None]]] = {
    "parquet": write_parquet,
    "jsonl": write_lines,
    "jsonl.gz": write_zipped_lines,
}
_S3: Final = "s3://"
_CLOSE_S: Final = 3.0


class _Files(Protocol):
    def write(self, path: str, fill: Callable[[BinaryIO], None]) -> None: ...

    def close(self) -> None: ...


class FileSink:
    """Write captured events to files, one for each deployment, day and delivery.

    They stand below ``namespace=NAMESPACE/deployment=NAME/date=DAY/``, which readers of Parquet
    take for columns. A delivery is taken as a whole or not at all, and a file is named after its
    first event: a delivery that is repeated, also by a new process, replaces the files of the
    attempt before it.

    Parameters
    ----------
    where : str or Path
        A folder, or ``s3://BUCKET/PREFIX``.
    file_format : "parquet", "jsonl" or "jsonl.gz", default "parquet"
        Parquet has the columns of ``COLUMNS``; a line of JSON is an event in the JSON format of
        CloudEvents.
    s3 : S3Settings, optional
        For a bucket.
    timeout_s : float, default 30.0
        For one delivery, seconds.

    Raises
    ------
    SinkError
        When a folder cannot be used.
    ValueError
        When another argument cannot.

    """

    def __init__(
        self,
        where: str | Path,
        *,
        file_format: FileFormat = "parquet",
        s3: S3Settings | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        if file_format not in _WRITERS:
            raise ValueError(f"file_format: expected {', '.join(_WRITERS)}, got {file_format!r}")
        if not timeout_s > 0:
            raise ValueError(f"timeout_s: expected a positive number, got {timeout_s}")
        address = str(where)
        self._files: _Files = (
            S3Files(address.removeprefix(_S3), s3 or S3Settings())
            if address.startswith(_S3)
            else LocalFiles(Path(where))
        )
        self._ending = file_format
        self._write = _WRITERS[file_format]
        self._timeout_s = timeout_s
        self._worker = SinkWorker("sidelight-files")
        # Files of a delivery that failed later on, with what is in them: not written again.
        self._written: dict[str, tuple[int, CapturedEvent]] = {}
        self._reason = ""

    async def send(self, events: Sequence[CapturedEvent]) -> Delivery:
        """Deliver events; see ``Sink``."""
        cancelled = threading.Event()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._worker.run(lambda: self._deliver(events, cancelled))
        except TimeoutError:
            cancelled.set()
            return Delivery(n_taken=0, failure="timeout")
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def close(self) -> None:
        """Let go of the folder or the bucket, within three seconds."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._worker.run(self._files.close)
        except TimeoutError:
            log.warning("the files did not close in time")
        self._worker.stop()

    def _deliver(self, events: Sequence[CapturedEvent], cancelled: threading.Event) -> Delivery:
        written: dict[str, tuple[int, CapturedEvent]] = {}
        try:
            for place, chosen in places(unhurried(events, cancelled)).items():
                path = f"{place.folder()}/{file_name(chosen, self._ending)}"
                content = len(chosen), chosen[-1]
                if self._written.get(path) != content:
                    self._files.write(path, self._filling(chosen, cancelled))
                written[path] = content
        except WorkCancelled:
            self._written |= written
            return Delivery(n_taken=0, failure="timeout")
        except OSError as error:
            self._written |= written
            return Delivery(n_taken=0, failure=self._trouble(reason_of(error)))
        except (AttributeError, TypeError, ValueError, pa.ArrowException) as error:
            # Not its text, which may quote an event.
            kind = type(error).__name__
            log.error("captured events cannot be encoded", extra={"error": kind})  # noqa: TRY400
            return Delivery(n_taken=0, n_refused=len(events), failure="unencodable")
        self._written.clear()
        self._reason = ""
        return Delivery(n_taken=len(events))

    def _trouble(self, reason: str) -> str:
        if reason != self._reason:
            self._reason = reason
            log.warning("captured events cannot be written", extra={"reason": reason})
        return reason

    def _filling(
        self, events: Sequence[CapturedEvent], cancelled: threading.Event
    ) -> Callable[[BinaryIO], None]:
        return lambda file: self._write(unhurried(events, cancelled), file)
