"""Whether the raw archive is byte for byte what was written."""

from dataclasses import dataclass, replace
from pathlib import Path

from sidelight.logger._checkpoint import Checkpoint, LogHead, SealedSegment
from sidelight.logger._segments_folder import (
    COVERED_VERSION,
    SIGNED_VERSION,
    DurableMark,
    folder_version,
)
from sidelight.logger._segments_format import CHAIN_START, segment_first, segment_paths
from sidelight.logger._segments_recovery import Scan, scan_segment, signed_finding
from sidelight.logger.errors import JournalDamaged

_CHECKPOINT = "checkpoint.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What ``verify`` found.

    Parameters
    ----------
    ok : bool
        Whether everything is as it was written.
    segments, records, bytes : int
        How much was found to be right.
    tail_bytes : int
        Bytes behind the last whole group of a journal that is being written or was killed;
        nobody was told that they are stored.
    findings : tuple of str
        What was changed, is missing or was added, each with its file and place.
    key : str
        Public key that signed the checkpoint, hexadecimal; empty when it is not signed.
    retired : int
        Records that were deleted on purpose, as the checkpoint says.
    adopted : int
        Records that were there before anything was signed.
    access : LogHead or None
        How far the access log went when the checkpoint was signed; None when that does not say it.
    unsigned : int
        Records behind the last one that the checkpoint covers: the chain holds them, but whoever
        can write to the folder could have made it anew.

    """

    ok: bool
    segments: int
    records: int
    bytes: int
    tail_bytes: int
    findings: tuple[str, ...]
    key: str = ""
    retired: int = 0
    unsigned: int = 0
    access: LogHead | None = None
    adopted: int = 0


def verify(data: Path, *, public_key: str | None = None, sealed_only: bool = False) -> VerifyReport:
    """Check every byte under ``raw/`` against the chain and the checkpoint; change nothing.

    After a clean stop the checkpoint covers every byte. Behind the checkpoint of a journal that
    is being written, or was killed, newer segments are right when their chain is.

    Parameters
    ----------
    data : Path
        The data folder.
    public_key : str, optional
        Of the only one whose checkpoint is right, 64 hexadecimal digits. Without it whoever can
        write to the folder could have signed anew.
    sealed_only : bool, default False
        Of a copy that was taken without the segment that is written to and the access log: that
        these are not there is right.

    """
    return _Verification(data, public_key, sealed_only=sealed_only).report()


class _Verification:
    def __init__(self, data: Path, public_key: str | None, *, sealed_only: bool) -> None:
        self._is_sealed_only = sealed_only
        self._data = data
        self._public_key = public_key
        self._findings: list[str] = []
        self._segments = self._records = self._bytes = self._tail_bytes = self._retired = 0
        self._position = 0
        self._key = ""
        self._previous: bytes | None = CHAIN_START

    def report(self) -> VerifyReport:
        mark = _mark(self._data)
        checkpoint = self._checkpoint()
        # Listed after the checkpoint was read: what a writer adds meanwhile is only newer.
        paths = {path.name: first for first, path in segment_paths(self._data / "raw")}
        self._check_names()
        listed = checkpoint.segments if checkpoint else ()
        for segment in listed:
            self._check_sealed(segment, present=paths.pop(segment.name, None) is not None)
        begun = checkpoint.open if checkpoint else None
        signed_end = begun.next_position if begun else self._position
        self._check_unsealed(paths, begun, closed=checkpoint is not None and checkpoint.closed)
        if self._position < mark:
            self._found("raw", f"records {self._position} to {mark - 1} are missing at the end")
        return VerifyReport(
            ok=not self._findings,
            segments=self._segments,
            records=self._records,
            bytes=self._bytes,
            tail_bytes=self._tail_bytes,
            findings=tuple(self._findings),
            key=checkpoint.key if checkpoint else "",
            retired=self._retired,
            unsigned=max(0, self._position - signed_end),
            adopted=checkpoint.adopted if checkpoint else 0,
            access=checkpoint.access if checkpoint and not self._is_sealed_only else None,
        )

    def _found(self, name: str, what: str) -> None:
        self._findings.append(f"{name}: {what}")

    def _checkpoint(self) -> Checkpoint | None:
        try:
            checkpoint = Checkpoint.load(self._data)
        except JournalDamaged:
            self._found(
                f"raw/{_CHECKPOINT}", "was changed, it does not have its digest and signature"
            )
            return None
        except OSError as error:
            self._found(f"raw/{_CHECKPOINT}", _unreadable(error))
            return None
        if checkpoint is None:
            self._found(f"raw/{_CHECKPOINT}", "is missing")
            return None
        self._findings.extend(checkpoint.findings)
        self._bytes += len(checkpoint.encode())
        self._key = checkpoint.key
        self._check_signer(checkpoint.key)
        self._check_format(checkpoint)
        return checkpoint

    def _check_format(self, checkpoint: Checkpoint) -> None:
        version = folder_version(self._data)
        newest = COVERED_VERSION if checkpoint.access is not None else 0
        if version is not None and version < newest:
            self._found("format", f"says {version}, its checkpoint is of {newest} or later")

    def _check_signer(self, key: str) -> None:
        name = f"raw/{_CHECKPOINT}"
        if self._public_key is not None and key != self._public_key:
            who = f"is signed by {key}" if key else "is not signed"
            self._found(name, f"{who}, expected {self._public_key}")
        elif not key and (folder_version(self._data) or 0) >= SIGNED_VERSION:
            self._found(name, "is not signed, though this folder signs")

    def _check_names(self) -> None:
        raw = self._data / "raw"
        for path in sorted(raw.iterdir()) if raw.is_dir() else ():
            if path.name != _CHECKPOINT and (
                segment_first(path.name) is None or path.is_symlink() or not path.is_file()
            ):
                self._found(f"raw/{path.name}", "was added, it is no part of the archive")

    def _check_sealed(self, segment: SealedSegment, *, present: bool) -> None:
        name = f"raw/{segment.name}"
        self._expect_position(name, segment.first)
        try:
            self._judge_sealed(segment, self._scanned(segment) if present else None)
        except OSError as error:
            self._found(name, _unreadable(error))
        self._position = segment.next_position
        self._previous = bytes.fromhex(segment.digest)

    def _judge_sealed(self, segment: SealedSegment, scan: Scan | None) -> None:
        name, last = f"raw/{segment.name}", segment.next_position - 1
        if scan is None and (segment.is_retired or self._is_retired_now(segment)):
            self._retired += segment.records
        elif scan is None:
            self._found(name, f"is missing, with records {segment.first} to {last}")
        elif segment.damaged:
            self._found(name, f"was found damaged at a start, {_place(scan)}")
        elif scan.bad is not None:
            self._found(name, f"was changed, {_place(scan)}")
        elif scan.good_bytes != segment.bytes:
            self._found(name, f"expected {segment.bytes} bytes, got {scan.good_bytes}")
        elif scan.digest.hex() != segment.digest:
            self._found(name, f"records {segment.first} to {last} were replaced")
        else:
            self._count(scan, segment.first)

    def _scanned(self, segment: SealedSegment) -> Scan | None:
        path = self._data / "raw" / segment.name
        try:
            return scan_segment(path, first=segment.first, previous=self._previous)
        except FileNotFoundError:
            return None

    def _is_retired_now(self, segment: SealedSegment) -> bool:
        """Whether a checkpoint by the same key, stored since, says that it was deleted."""
        try:
            newer = Checkpoint.load(self._data)
        except JournalDamaged:
            return False
        if newer is None or newer.key != self._key:
            return False
        was = replace(segment, retired_ns=0, why="")
        return any(
            item.is_retired and replace(item, retired_ns=0, why="") == was
            for item in newer.segments
        )

    def _check_unsealed(
        self, paths: dict[str, int], begun: SealedSegment | None, *, closed: bool
    ) -> None:
        if begun is not None and begun.name not in paths and not self._is_sealed_only:
            self._check_signed(begun, None)
        for name, first in sorted(paths.items()):
            if closed or first < self._position:
                self._found(f"raw/{name}", "was added, the checkpoint does not list it")
                continue
            self._expect_position(f"raw/{name}", first)
            path = self._path(f"raw/{name}")
            if not path.exists():
                continue  # an empty segment, deleted by a clean stop since it was listed
            signed_bytes = begun.bytes if begun is not None and begun.name == name else 0
            try:
                scan = scan_segment(
                    path, first=first, previous=self._previous, signed_bytes=signed_bytes
                )
            except OSError as error:
                self._found(f"raw/{name}", _unreadable(error))
                continue
            if begun is not None and signed_bytes:
                self._check_signed(begun, scan)
            is_last = name == max(paths)
            if scan.bad is not None and not (is_last and scan.after is None):
                self._found(f"raw/{name}", f"was changed, {_place(scan)}")
            elif scan.bad is not None:
                self._tail_bytes = path.stat().st_size - scan.good_bytes
            self._count(scan, first)
            self._position, self._previous = scan.next_position, scan.digest

    def _check_signed(self, begun: SealedSegment, scan: Scan | None) -> None:
        finding = signed_finding(begun, scan)
        if finding is not None:
            self._findings.append(finding)

    def _expect_position(self, name: str, first: int) -> None:
        if first != self._position:
            self._found(name, f"begins with record {first}, expected {self._position}")

    def _path(self, name: str) -> Path:
        return self._data / name

    def _count(self, scan: Scan, first: int) -> None:
        self._segments += 1
        self._records += scan.next_position - first
        self._bytes += scan.good_bytes


def _mark(data: Path) -> int:
    try:
        mark = DurableMark(data)
    except FileNotFoundError:
        return 0
    try:
        return mark.value
    finally:
        mark.close()


def _unreadable(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"


def _place(scan: Scan) -> str:
    if scan.bad is None:
        return "its chain holds now"
    return f"at byte {scan.good_bytes}, record {scan.next_position}: {scan.bad.why}"
