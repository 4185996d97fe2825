"""An alarm that is raised once, stays, and ends."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sidelight.payloads import Alarm, FeatureShare


@dataclass(slots=True)
class Latch:
    """State of one kind of alarm of a deployment.

    Parameters
    ----------
    quiet_rows : int
        Rows over which every effect must stay small before the alarm ends.

    """

    quiet_rows: int
    alarm: Alarm | None = None
    quiet_since_row: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether an alarm was raised and has not ended."""
        return self.alarm is not None

    def open(self, alarm: Alarm) -> Alarm:
        """Raise an alarm."""
        self.alarm = alarm
        self.quiet_since_row = None
        return alarm

    def look(self, *, quiet: bool, row: int, time: str) -> Alarm | None:
        """Tell an open alarm whether all effects are small; return it when it ends."""
        if self.alarm is None:
            return None
        if not quiet:
            self.quiet_since_row = None
            return None
        if self.quiet_since_row is None:
            self.quiet_since_row = row
        if row - self.quiet_since_row < self.quiet_rows:
            return None
        ended = replace(self.alarm, state="ended", ended_at=time)
        self.alarm = None
        self.quiet_since_row = None
        return ended

    def to_json(self) -> dict[str, Any]:
        """Return what a snapshot keeps."""
        return {
            "quiet_rows": self.quiet_rows,
            "alarm": None if self.alarm is None else self.alarm.to_json(),
            "quiet_since_row": self.quiet_since_row,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Latch":
        """Read what ``to_json`` returned."""
        alarm = None
        if value["alarm"] is not None:
            shares = tuple(FeatureShare(**item) for item in value["alarm"]["features"])
            alarm = Alarm(**{**value["alarm"], "features": shares})
        return cls(value["quiet_rows"], alarm, value["quiet_since_row"])


def alarm_id(deployment: str, detector: str, row: int) -> str:
    """Return an id that is the same when the work is done again: 24 hexadecimal digits."""
    text = f"{deployment}\0{detector}\0{row}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:24]
