"""The checkpoint of the archive: what was there when it was signed, digest by digest."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from sidelight.logger._segments_folder import replace_file
from sidelight.logger._segments_signature import Signer, is_signed
from sidelight.logger.errors import JournalDamaged

_FORMAT = 1
_NO_SEGMENTS = '\n "segments": []'


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedSegment:
    """What the checkpoint says of one segment.

    Parameters
    ----------
    digest : str
        Its last one, in hexadecimal.
    time_ns : int
        Receive time of its last group.
    damaged : bool
        Whether a start found other bytes than were written.
    retired_ns : int
        When it was deleted on purpose, nanoseconds since 1970 UTC; 0 when it was not.
    why : str
        Why it was deleted.
    text : str
        What stands of it in the checkpoint; one that is there looks as it always did.

    """

    name: str
    bytes: int
    records: int
    first: int
    digest: str
    time_ns: int
    damaged: bool = False
    retired_ns: int = 0
    why: str = ""
    text: str = field(default="", init=False, repr=False, compare=False)

    @property
    def next_position(self) -> int:
        """The position behind its last record."""
        return self.first + self.records

    @property
    def is_retired(self) -> bool:
        """Whether it was deleted on purpose."""
        return self.retired_ns > 0

    def __post_init__(self) -> None:
        """Make its text once: a checkpoint of a large archive has thousands of them."""
        retired = ""
        if self.is_retired:
            retired = f',\n   "retired_ns": {self.retired_ns}'
        text = (
            f'  {{\n   "bytes": {self.bytes},\n   "damaged": {json.dumps(self.damaged)},'
            f'\n   "digest": {json.dumps(self.digest)},\n   "first": {self.first},'
            f'\n   "name": {json.dumps(self.name)},\n   "records": {self.records}{retired},'
            f'\n   "time_ns": {self.time_ns}'
        )
        if self.is_retired:
            text += f',\n   "why": {json.dumps(self.why)}'
        object.__setattr__(self, "text", text + "\n  }")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogHead:
    """How far a log beside the archive went: a chain of lines in files that sort by time.

    Parameters
    ----------
    entries : int
        Lines in all of its files; with none the rest is empty.
    file : str
        Name of the file that holds the last one.
    bytes : int
        Where that line ends in it.
    digest : str
        SHA-256 of that line, hexadecimal; lines hold the one of the line before them.

    """

    entries: int = 0
    file: str = ""
    bytes: int = 0
    digest: str = ""


Watch = Callable[[LogHead | None], tuple[LogHead | None, str | None]]
"""Looks at a log beside the archive. It is given what was signed last and returns how far the log
goes now, or the same when that cannot be told, and what is wrong when it no longer holds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What stands under ``raw/``.

    Parameters
    ----------
    segments : tuple of SealedSegment
        In order.
    closed : bool
        Whether these are all; otherwise newer ones may stand behind them.
    findings : tuple of str
        What starts found changed; it stays written down.
    open : SealedSegment or None
        The segment that is written to, as far as it was durable then; it has more by now.
    access : LogHead or None
        How far the access log went; None when the checkpoint does not cover it.
    adopted : int
        Records that were there before anything was signed: nobody vouches for them.
    key, signature : str
        Public key and signature, hexadecimal; empty when it is not signed.

    """

    segments: tuple[SealedSegment, ...] = ()
    closed: bool = False
    findings: tuple[str, ...] = ()
    open: SealedSegment | None = None
    access: LogHead | None = None
    adopted: int = 0
    key: str = ""
    signature: str = ""

    def encode(self) -> bytes:
        """Return the one byte form of it, which carries its own digest and signature."""
        digest = hashlib.sha256(self._canonical()).hexdigest()
        signed = {"signature": self.signature} if self.key else {}
        return self._canonical(digest=digest, **signed) + b"\n"

    def signed_by(self, signer: Signer) -> "Checkpoint":
        """Return the same with a signature over all of it."""
        named = replace(self, key=signer.public_key, signature="")
        return replace(named, signature=signer.sign(named._canonical()))  # noqa: SLF001 - of this class

    def _canonical(self, **further: str) -> bytes:
        content = {
            "format": _FORMAT,
            "closed": self.closed,
            "findings": list(self.findings),
            "segments": [],
            **({"open": _progress(self.open)} if self.open else {}),
            **({"access": asdict(self.access)} if self.access else {}),
            **({"adopted": self.adopted} if self.adopted else {}),
            **({"key": self.key} if self.key else {}),
            **further,
        }
        text = json.dumps(content, sort_keys=True, indent=1)
        if self.segments:
            # Within a string of JSON no quote stands like this.
            listed = ",\n".join([segment.text for segment in self.segments])
            text = text.replace(_NO_SEGMENTS, f'\n "segments": [\n{listed}\n ]', 1)
        return text.encode()

    def _is_signed(self) -> bool:
        return is_signed(self._canonical(), public_key=self.key, signature=self.signature)

    @classmethod
    def decode(cls, data: bytes) -> "Checkpoint":
        """Read it back; raise ``JournalDamaged`` unless every byte is as written."""
        try:
            content = json.loads(data)
            segments = tuple(SealedSegment(**segment) for segment in content["segments"])
            findings = tuple(content["findings"])
            begun, access = content.get("open"), content.get("access")
            checkpoint = cls(
                segments=segments,
                closed=content["closed"],
                findings=findings,
                open=None if begun is None else SealedSegment(**begun),
                access=None if access is None else LogHead(**access),
                adopted=content.get("adopted", 0),
                key=content.get("key", ""),
                signature=content.get("signature", ""),
            )
            whole = checkpoint.encode() == data and (not checkpoint.key or checkpoint._is_signed())
        except (ValueError, TypeError, KeyError, RecursionError):
            whole = False
        if not whole:
            raise JournalDamaged(
                "checkpoint.json: it does not have its digest and signature; it was changed"
            )
        return checkpoint

    @classmethod
    def load(cls, data: Path) -> "Checkpoint | None":
        """Read the checkpoint of a data folder; None when it has none."""
        try:
            return cls.decode((data / "raw" / "checkpoint.json").read_bytes())
        except FileNotFoundError:
            return None

    def store(self, data: Path) -> None:
        """Replace the checkpoint of a data folder, durably."""
        replace_file(data / "raw" / "checkpoint.json", self.encode(), scratch=data / "run")


def _progress(segment: SealedSegment) -> dict[str, object]:
    names = ("name", "bytes", "records", "first", "digest", "time_ns")
    return {name: getattr(segment, name) for name in names}
