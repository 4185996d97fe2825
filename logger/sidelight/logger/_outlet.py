"""One sink with a position of its own, as it is configured."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from sidelight.logger._sink import Sink
from sidelight.logger._spool import Spool

Overflow = Literal["spool", "drop_newest", "drop_oldest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmitterLimits:
    """Bounds of one outlet.

    Parameters
    ----------
    memory_bytes : int, default 64 MiB
        Of events that wait in memory.
    batch_events : int, default 1024
    batch_bytes : int, default 4 MiB
        A batch is sent when it has reached either; a larger event goes alone.
    linger_s : float, default 0.05
        How long an incomplete batch waits for company, seconds.
    spill_after_s : float, default 0.4
        Events in memory older than that, at most twice that, go to the spool, seconds.
    max_backoff_s : float, default 10.0
        Longest pause before the sink is tried again, seconds; it bounds ``Retry-After`` too.
    open_after_failures : int, default 5
        So many failures in a row open the circuit: a small batch tries the sink first from then
        on.

    Raises
    ------
    ValueError
        When a bound is not positive.

    """

    memory_bytes: int = 64 << 20
    batch_events: int = 1024
    batch_bytes: int = 4 << 20
    linger_s: float = 0.05
    spill_after_s: float = 0.4
    max_backoff_s: float = 10.0
    open_after_failures: int = 5

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolFolder:
    """Where a spool is and how large it may become; see ``Spool``.

    Parameters
    ----------
    folder : Path
        One for each outlet.
    max_bytes : int, default 1 GiB
    segment_bytes : int, default 4 MiB

    """

    folder: Path
    max_bytes: int = 1 << 30
    segment_bytes: int = 4 << 20

    def open(self) -> Spool:
        """Open the spool; raise ``SpoolError`` when the folder cannot be had."""
        return Spool(self.folder, max_bytes=self.max_bytes, segment_bytes=self.segment_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlet:
    """One sink, and what happens to events that it does not take.

    Parameters
    ----------
    name : str
        Label ``sink`` of the metrics.
    sink : Sink
        Where events go; closed by the emitter.
    overflow : "spool", "drop_newest" or "drop_oldest", default "spool"
        ``spool`` keeps on disk what waits for longer than a moment. The others have only memory,
        and give up what comes last or what waits longest when it is full.
    spool : SpoolFolder, optional
        For ``spool``, and only for that.
    limits : EmitterLimits, optional
        Bounds.
    settings : object, optional
        What the sink was made from. When outlets are replaced, one whose name and settings are
        equal goes on as it is, and the new sink is closed unused. Without settings only the same
        sink is equal.

    Raises
    ------
    ValueError
        When the name is empty, or the policy and the spool do not go together.

    """

    name: str
    sink: Sink
    overflow: Overflow = "spool"
    spool: SpoolFolder | None = None
    limits: EmitterLimits = field(default_factory=EmitterLimits)
    settings: object = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("outlet: expected a name, got an empty one")
        if self.overflow not in get_args(Overflow):
            raise ValueError(
                f"outlet {self.name}: expected overflow spool, drop_newest or drop_oldest, "
                f"got {self.overflow!r}"
            )
        if (self.overflow == "spool") != (self.spool is not None):
            expected = "a folder" if self.spool is None else "none"
            raise ValueError(
                f"outlet {self.name}: expected {expected} for the spool, since overflow is "
                f"{self.overflow}"
            )

    def is_same(self, other: "Outlet") -> bool:
        """Whether the other may go on in place of this one."""
        if self.settings is None:
            return self == other
        return replace(self, sink=other.sink) == other


def check_outlets(outlets: Iterable[Outlet]) -> tuple[Outlet, ...]:
    """Return the outlets, of which there are some, with names and folders of their own.

    Raises
    ------
    ValueError
        When it is not so.

    """
    given = tuple(outlets)
    if not given:
        raise ValueError("outlets: expected at least one, got none")
    names = [outlet.name for outlet in given]
    folders = [outlet.spool.folder.absolute() for outlet in given if outlet.spool is not None]
    for what, values in (("name", names), ("spool folder", folders)):
        for value in values:
            if values.count(value) > 1:  # type: ignore[arg-type]  # of one kind each
                raise ValueError(f"outlets: expected a {what} of their own, got {value} twice")
    return given
