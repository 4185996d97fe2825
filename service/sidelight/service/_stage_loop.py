"""The loop of a process with stages: what one of them cannot do costs the others nothing."""

import gc
import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from sidelight.adapters import EmbeddedJournals
from sidelight.logger.errors import FolderInUse, JournalError
from sidelight.service._settings import Settings
from sidelight.service._stage import Stage
from sidelight.service._stages import groups_of

log = logging.getLogger(__name__)

_PATIENCE_S: Final = 15.0
_PAUSE_S: Final = 0.05
# The longer nothing comes the longer it waits, so that a quiet system is quiet.
_SHORTEST_IDLE_S: Final = 0.01
_LONGEST_IDLE_S: Final = 0.05
_AFTER_FAILURE_S: Final = 1.0
_MARK_S: Final = 1.0
# A step makes this many objects and lets all of them go; none of them is part of a cycle.
_OBJECTS_A_STEP: Final = 200_000


def until_terminated() -> threading.Event:
    """Return what is set by SIGTERM."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    return stopping


def open_journals(
    settings: Settings, role: str, stopping: threading.Event, *, busy_s: float = 30.0
) -> EmbeddedJournals:
    """Take a role of the data folder; a process that was killed a moment ago may still hold it.

    Raises
    ------
    JournalError
        When the folder stays in use, or cannot be opened.

    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return EmbeddedJournals(
                settings.data, groups=groups_of(settings), roles=(role,), busy_s=busy_s
            )
        except FolderInUse:
            if stopping.wait(_PAUSE_S) or time.monotonic() > deadline:
                raise


def keep_what_is_there() -> None:
    """Tell the collector that what is here now stays, and that steps leave no cycles behind."""
    gc.freeze()
    gc.set_threshold(_OBJECTS_A_STEP, 10, 10)


def work(
    stages: Sequence[Stage], stopping: threading.Event, each_second: Callable[[], None]
) -> None:
    """Let the stages work one after the other until it is time to stop."""
    told_s = 0.0
    idle_s = _SHORTEST_IDLE_S
    while not stopping.is_set():
        worked = [_step(stage, stopping) for stage in stages]
        now_s = time.monotonic()
        if now_s - told_s > _MARK_S:
            told_s = now_s
            each_second()
        if any(worked):
            idle_s = _SHORTEST_IDLE_S
        else:
            stopping.wait(idle_s)
            idle_s = min(1.1 * idle_s, _LONGEST_IDLE_S)


def _step(stage: Stage, stopping: threading.Event) -> bool:
    """Let one stage work; what it cannot commit it does again, and the others go on."""
    try:
        return stage.step(time.time_ns())
    except JournalError as error:
        log.warning("not committed", extra={"stage": stage.name, "reason": str(error)})
    except Exception:
        log.exception("stage failed", extra={"stage": stage.name})
    stopping.wait(_AFTER_FAILURE_S)
    stage.reset()
    return False
