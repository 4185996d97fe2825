"""What the consumer asks the door to delete of the archive.

The consumer knows whose events a segment holds; the door owns the archive and signs for it. The
request lies in ``run/``: when it is lost, the consumer asks again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from sidelight.logger._checkpoint import Checkpoint, SealedSegment
from sidelight.logger._segments_folder import replace_file
from sidelight.logger.errors import JournalError
from sidelight.service._holds import Holds, refuse_held
from sidelight.service._segment_contents import SegmentContents
from sidelight.service.errors import ConfigurationError, OnHold

log = logging.getLogger(__name__)

_LOOK_S: Final = 1.0
_SECOND_NS: Final = 1_000_000_000
# How much of the time of the archive one segment may hold: each keeps a line in the checkpoint.
_SHORTEST_SEGMENT_S: Final = 3_600.0
_LONGEST_SEGMENT_S: Final = 86_400.0
_SEGMENTS: Final = 24


class Retires(Protocol):
    """What is needed of the archive's writer."""

    def retire(self, reasons: Mapping[str, str]) -> list[SealedSegment]:
        """Delete sealed segments; the checkpoint keeps what they were, and why."""
        ...

    def seal_begun_before(self, time_ns: int) -> None:
        """Have a new segment begun when the first record of this one came before a time."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    """One segment to be deleted: why, and whose events it holds."""

    name: str
    why: str
    contents: SegmentContents


def ask(data: Path, retirements: Iterable[Retirement]) -> None:
    """Replace what the door is asked for; it looks once a second."""
    wanted = [
        {"name": item.name, "why": item.why, "contents": item.contents.to_json()}
        for item in retirements
    ]
    replace_file(_path(data), orjson.dumps(wanted), scratch=data / "run")


def apply(data: Path, writer: Retires, *, raw_retention_s: float, now_ns: int) -> int:
    """Do what is asked; return how many segments were deleted.

    The door believes neither the age nor that nothing is on hold: it looks itself, while no hold
    can be added.
    """
    try:
        asked: list[dict[str, Any]] = orjson.loads(_path(data).read_bytes())
        wanted = [
            Retirement(
                name=item["name"],
                why=item["why"],
                contents=SegmentContents.from_json(item["contents"]),
            )
            for item in asked
        ]
    except FileNotFoundError:
        return 0
    except (ValueError, TypeError, KeyError, AttributeError):
        log.error("what is asked of the archive cannot be understood; nothing is deleted")  # noqa: TRY400 - the consumer asks again
        _path(data).unlink(missing_ok=True)
        return 0
    before_ns = now_ns - int(raw_retention_s * _SECOND_NS)
    with Holds(data).kept() as holds:
        old = _old_names(data, before_ns)
        reasons = {}
        for item in wanted:
            try:
                for name, (first_us, last_us) in item.contents.spans.items():
                    refuse_held(holds, name, first_us, last_us)
            except OnHold as error:
                log.warning("segment kept", extra={"segment": item.name, "why": str(error)})
                continue
            if item.name in old and not (holds and item.contents.has_unknown):
                reasons[item.name] = item.why
        retired = writer.retire(reasons) if reasons else []
    _path(data).unlink(missing_ok=True)
    if retired:
        log.info("segments retired", extra={"n": len(retired)})
    return len(retired)


async def retire_when_asked(
    data: Path, writer: Retires, *, raw_retention_s: float, clock: Callable[[], int] = time.time_ns
) -> None:
    """Look for requests until cancelled; the work is done in a thread."""
    segment_s = min(max(raw_retention_s / _SEGMENTS, _SHORTEST_SEGMENT_S), _LONGEST_SEGMENT_S)
    while True:
        await asyncio.sleep(_LOOK_S)
        writer.seal_begun_before(clock() - int(segment_s * _SECOND_NS))
        try:
            await asyncio.to_thread(
                apply, data, writer, raw_retention_s=raw_retention_s, now_ns=clock()
            )
        except (JournalError, ConfigurationError, OSError) as error:
            log.warning("segments are not retired now", extra={"reason": str(error)})


def _old_names(data: Path, before_ns: int) -> frozenset[str]:
    checkpoint = Checkpoint.load(data) or Checkpoint()
    return frozenset(item.name for item in checkpoint.segments if item.time_ns < before_ns)


def _path(data: Path) -> Path:
    return data / "run" / "retire.json"
