"""How the events of this configuration are sealed."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from sidelight.logger import EventLimits
from sidelight.logger._sealed_since import note_unsealed
from sidelight.logger._segments import SegmentWriter
from sidelight.service._settings import Settings

# Who seals nothing does not wait for what it takes.
if TYPE_CHECKING:
    from sidelight.logger._sealing import SealingJournal, SealingSettings
    from sidelight.logger._segments import Deliver


def sealing_settings(settings: Settings) -> "SealingSettings | None":
    """Return what is sealed; None for nothing."""
    if settings.erasure is None:
        return None
    from sidelight.logger._key_ring import KeySource  # noqa: PLC0415 - see above
    from sidelight.logger._sealing import KEPT_HEADERS, SealingSettings  # noqa: PLC0415

    erasure = settings.erasure
    # Whoever opens the ring finds the file from another folder, too.
    file = "" if erasure.key_file is None else str(erasure.key_file.absolute())
    return SealingSettings(
        deployments=erasure.deployments,
        source=KeySource(file=file, env=erasure.key_env or ""),
        headers=KEPT_HEADERS if erasure.headers is None else erasure.headers,
        limits=EventLimits(max_inflated_bytes=settings.limits.decompressed),
    )


def sealing(
    settings: Settings,
) -> "Callable[[SegmentWriter, Deliver | None], SealingJournal] | None":
    """Return what puts a sealing journal before the journal of a door; None for nothing."""
    sealed = sealing_settings(settings)
    if sealed is None:
        note_unsealed(settings.data)
        return None
    from sidelight.logger._sealing import SealingJournal  # noqa: PLC0415 - see above

    def before(writer: SegmentWriter, deliver: "Deliver | None") -> SealingJournal:
        return SealingJournal(settings.data, writer, sealed, deliver=deliver, position=writer.end)

    return before
