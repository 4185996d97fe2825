"""What a start makes of the segments that an earlier process left behind."""

import logging
import mmap
import os
from collections.abc import Container
from dataclasses import dataclass, replace
from pathlib import Path

from sidelight.logger._checkpoint import Checkpoint, LogHead, SealedSegment
from sidelight.logger._segments_folder import DurableMark, sync_folder
from sidelight.logger._segments_format import (
    CHAIN_START,
    CHUNK_BYTES,
    SEGMENT_HEADER_BYTES,
    BadBytes,
    Group,
    chain_seed,
    checked_groups,
    decode_segment_header,
    find_group,
    segment_paths,
)
from sidelight.logger.errors import JournalDamaged

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What the bytes of one segment are good for.

    Parameters
    ----------
    good_bytes : int
        Everything before it is as it was written.
    next_position : int
        The position behind the last good record.
    digest : bytes
        The chain up to ``good_bytes``.
    time_ns : int
        Of the last good group, else 0.
    bad : BadBytes or None
        What stands at ``good_bytes`` instead of the end of the file.
    after : Group or None
        Something behind the bad bytes that looks like a later group.
    signed : bytes or None
        The chain at the byte that was asked for; None when no good group ends there.

    """

    good_bytes: int
    next_position: int
    digest: bytes
    time_ns: int
    bad: BadBytes | None = None
    after: Group | None = None
    signed: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What a start found.

    Parameters
    ----------
    segments : tuple of SealedSegment
        Everything under ``raw/``, sealed.
    next_position, digest, time_ns
        Where the journal goes on.
    cut_bytes : int
        Bytes of a torn tail that were cut; nobody was told that they are stored.
    damaged : tuple of str
        Segments whose bytes are not what was written; they are left alone.
    lost_records : int
        Records that had been acknowledged and are not there.
    findings : tuple of str
        What every later checkpoint keeps saying about it.
    access : LogHead or None
        How far the access log went, as the checkpoint says.
    adopted : int
        Records that were there before anything was signed, as the checkpoint says.

    """

    segments: tuple[SealedSegment, ...] = ()
    next_position: int = 0
    digest: bytes = CHAIN_START
    time_ns: int = 0
    cut_bytes: int = 0
    damaged: tuple[str, ...] = ()
    lost_records: int = 0
    findings: tuple[str, ...] = ()
    access: LogHead | None = None
    adopted: int = 0


def scan_segment(path: Path, *, first: int, previous: bytes | None, signed_bytes: int = 0) -> Scan:
    """Check one segment from its first byte on; it is not changed.

    ``previous`` is the last digest of the segment before, None when that is not known;
    ``signed_bytes`` is where a checkpoint says what the chain was.
    """
    signed: bytes | None = None
    with path.open("rb", buffering=CHUNK_BYTES) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(SEGMENT_HEADER_BYTES)
        good, position, digest, time_ns = 0, first, previous or CHAIN_START, 0
        try:
            digest = _checked_header(data, first=first, previous=previous)
            good = SEGMENT_HEADER_BYTES
            for group in checked_groups(file, seed=digest, first=first, size=size):
                good, position = group.end, group.next_position
                digest, time_ns = group.digest, group.time_ns
                if group.end == signed_bytes:
                    signed = digest
        except BadBytes as bad:
            after = _later_group(path, size, behind=good + 1, position=position - 1)
            return Scan(
                good_bytes=good,
                next_position=position,
                digest=digest,
                time_ns=time_ns,
                bad=bad,
                after=after,
                signed=signed,
            )
    return Scan(
        good_bytes=good, next_position=position, digest=digest, time_ns=time_ns, signed=signed
    )


def signed_finding(begun: SealedSegment, scan: Scan | None) -> str | None:
    """Return what is wrong with the segment that a checkpoint signed while it was written to."""
    name, last = f"raw/{begun.name}", begun.next_position - 1
    if scan is None:
        return f"{name}: is missing, with records {begun.first} to {last}"
    if scan.signed is None or scan.signed.hex() != begun.digest:
        return f"{name}: records {begun.first} to {last} are not what was signed"
    return None


def _checked_header(data: bytes, *, first: int, previous: bytes | None) -> bytes:
    header = decode_segment_header(data)
    if header.first != first or (previous is not None and header.previous != previous):
        raise BadBytes("the segment header does not fit", offset=0, position=first)
    return chain_seed(data)


def _later_group(path: Path, size: int, *, behind: int, position: int) -> Group | None:
    if size <= behind:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        # A map has the find and the slices of bytes, which is all that is used of it.
        return find_group(data, behind=behind, position=position)  # type: ignore[arg-type]


def recover(data: Path, mark: DurableMark, *, trusted: Container[str] | None = None) -> Recovery:
    """Seal what an earlier process left: check the chain, cut a torn tail, report damage.

    Parameters
    ----------
    data : Path
        The data folder.
    mark : DurableMark
        Its end, as far as is known.
    trusted : container of str, optional
        Public keys of which one must have signed the checkpoint; None where none is signed.

    """
    recovery, begun = _checkpointed(data, trusted)
    sealed = {segment.name for segment in recovery.segments}
    left = [(first, path) for first, path in segment_paths(data / "raw") if path.name not in sealed]
    for first, path in left:
        is_last = path == left[-1][1]
        signed = begun if begun is not None and begun.name == path.name else None
        recovery = _seal(
            recovery, path, first=first, is_last=is_last, mark=mark.value, signed=signed
        )
    if begun is not None and begun.name not in {path.name for _, path in left}:
        recovery = _noted(recovery, signed_finding(begun, None))
    if recovery.next_position < mark.value:
        log.error(
            "acknowledged records are missing at the end of the journal",
            extra={"first": recovery.next_position, "next": mark.value},
        )
        lost = mark.value - recovery.next_position
        recovery = replace(recovery, next_position=mark.value, lost_records=lost)
    return recovery


def _checkpointed(
    data: Path, trusted: Container[str] | None
) -> tuple[Recovery, SealedSegment | None]:
    try:
        checkpoint = Checkpoint.load(data)
    except JournalDamaged:
        # The segments still say everything but that none is missing, so that stays on record.
        log.exception("the checkpoint was changed; all segments are checked again")
        finding = "raw/checkpoint.json: had been changed before a start and was made anew"
        return Recovery(findings=(finding,)), None
    if checkpoint is None:
        if not segment_paths(data / "raw"):
            return Recovery(), None
        log.error("the checkpoint is missing; all segments are checked again")
        finding = "raw/checkpoint.json: was missing at a start and was made anew"
        return Recovery(findings=(finding,)), None
    findings = checkpoint.findings
    if trusted is not None and checkpoint.key not in trusted:
        # What is signed from now on must not vouch for what somebody else put there.
        who = f"was signed by {checkpoint.key}" if checkpoint.key else "was not signed"
        log.error("the checkpoint is not by a trusted key", extra={"key": checkpoint.key})
        findings = (*findings, f"raw/checkpoint.json: {who} at a start")
    elif trusted is not None:
        _finish_retirement(data, checkpoint)
    if not checkpoint.segments:
        recovery = Recovery(findings=findings, access=checkpoint.access, adopted=checkpoint.adopted)
        return recovery, checkpoint.open
    last = checkpoint.segments[-1]
    recovery = Recovery(
        segments=checkpoint.segments,
        next_position=last.next_position,
        digest=bytes.fromhex(last.digest),
        time_ns=last.time_ns,
        findings=findings,
        access=checkpoint.access,
        adopted=checkpoint.adopted,
    )
    return recovery, checkpoint.open


def _finish_retirement(data: Path, checkpoint: Checkpoint) -> None:
    """Delete what a signed checkpoint calls deleted: a kill may have come between the two."""
    for segment in checkpoint.segments:
        if segment.is_retired:
            (data / "raw" / segment.name).unlink(missing_ok=True)


def _noted(recovery: Recovery, finding: str | None) -> Recovery:
    if finding is None or finding in recovery.findings:
        return recovery
    log.error("the last segment is not what was signed", extra={"finding": finding})
    return replace(recovery, findings=(*recovery.findings, finding))


def _seal(  # one keyword for each thing that is known of it
    recovery: Recovery,
    path: Path,
    *,
    first: int,
    is_last: bool,
    mark: int,
    signed: SealedSegment | None,
) -> Recovery:
    known = bool(recovery.segments)
    scan = scan_segment(
        path,
        first=first,
        previous=recovery.digest if known else None,
        signed_bytes=0 if signed is None else signed.bytes,
    )
    if signed is not None:
        recovery = _noted(recovery, signed_finding(signed, scan))
    position, damaged = scan.next_position, False
    if scan.bad is not None:
        # One group is in flight at a time: bytes of a torn one were never acknowledged, so they
        # stand at the mark or behind it, are the last ones, and nothing follows them.
        torn = is_last and scan.after is None and position >= mark
        if torn:
            cut = path.stat().st_size - scan.good_bytes
            _cut(path, scan.good_bytes)
            log.warning("a torn tail was cut", extra={"segment": path.name, "bytes": cut})
            recovery = replace(recovery, cut_bytes=recovery.cut_bytes + cut)
        else:
            damaged = True
            position = max(first + 1, position, scan.after.next_position if scan.after else 0)
            log.error(
                "a segment is damaged",
                extra={"segment": path.name, "byte": scan.good_bytes, "why": scan.bad.why},
            )
            recovery = replace(recovery, damaged=(*recovery.damaged, path.name))
    if position == first and not damaged:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
        return recovery
    segment = SealedSegment(
        name=path.name,
        bytes=path.stat().st_size,
        records=position - first,
        first=first,
        digest=scan.digest.hex(),
        time_ns=max(scan.time_ns, recovery.time_ns),
        damaged=damaged,
    )
    return replace(
        recovery,
        segments=(*recovery.segments, segment),
        next_position=position,
        digest=scan.digest,
        time_ns=segment.time_ns,
    )


def _cut(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)
        os.fsync(file.fileno())
