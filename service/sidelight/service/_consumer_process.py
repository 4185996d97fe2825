"""The process of the consumer: the three stages, one after the other, each at its own position."""

import gc
import logging
import signal
import sys
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from sidelight.adapters import (
    AdapterError,
    EmbeddedDocuments,
    EmbeddedJournals,
    Lake,
    WaitingScores,
)
from sidelight.logger import Journals
from sidelight.logger.errors import FolderInUse, JournalError
from sidelight.service._deployments import put_all_settings
from sidelight.service._erasing import through_door
from sidelight.service._freed_memory import keep_freed_memory
from sidelight.service._gauges import gauges_document
from sidelight.service._lake_place import open_mover
from sidelight.service._metrics import Labels
from sidelight.service._process import say_ready
from sidelight.service._query_store import note_store
from sidelight.service._run_folder import RunFolder
from sidelight.service._settings import Settings
from sidelight.service._stage import DECODING, DETECTION, INDEXING, STORING, Stage
from sidelight.service._stage_counting import CountingStage
from sidelight.service._stage_decoding import DecodingStage
from sidelight.service._stage_detection import DetectionStage
from sidelight.service._stage_erasing import ErasingStage
from sidelight.service._stage_retention import RetentionStage
from sidelight.service._stage_storing import StoringStage
from sidelight.service._supervisor import CANNOT_START
from sidelight.service.errors import ConfigurationError

if TYPE_CHECKING:
    from sidelight.service._stage_indexing import IndexingStage

log = logging.getLogger(__name__)

_PATIENCE_S = 15.0
_PAUSE_S = 0.05
# The longer nothing comes the longer it waits, so that a quiet system is quiet.
_SHORTEST_IDLE_S = 0.01
_LONGEST_IDLE_S = 0.05
_AFTER_FAILURE_S = 1.0
_MARK_S = 1.0
# Longer than any stage waits before it takes a journal for idle.
_REST_NS = 2_000_000_000
# A step makes this many objects and lets all of them go; none of them is part of a cycle.
_OBJECTS_A_STEP = 200_000


def run_consumer(settings: Settings) -> None:
    """Work on what the door stored until SIGTERM."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    keep_freed_memory()
    try:
        journals = _open(settings, stopping)
    except JournalError as error:
        log.error("%s", error)  # noqa: TRY400 - a sentence for a person, no traceback
        sys.exit(CANNOT_START)
    documents = EmbeddedDocuments(settings.data)
    try:
        mover = open_mover(settings, documents)
    except (AdapterError, ConfigurationError) as error:
        log.error("%s", error)  # noqa: TRY400 - a sentence for a person, no traceback
        sys.exit(CANNOT_START)
    put_all_settings(documents, settings.deployments)
    stages = _stages(settings, journals, documents)
    stages.append(RetentionStage(journals, documents, Lake(settings.data), settings))
    append = through_door(settings.data)
    stages.append(
        ErasingStage(journals, documents, Lake(settings.data), settings, list(stages), append)
    )
    try:
        indexing = _indexing(settings, journals, documents)
    except (AdapterError, ConfigurationError) as error:
        log.error("%s", error)  # noqa: TRY400 - a sentence for a person, no traceback
        sys.exit(CANNOT_START)
    if indexing is not None:
        stages.append(indexing)
    # What is here now stays: the collector need not look at it again, nor at each step's objects.
    gc.freeze()
    gc.set_threshold(_OBJECTS_A_STEP, 10, 10)
    RunFolder(settings.data).mark_consumer()
    say_ready()
    if mover is not None:
        mover.start()
    try:
        _work(settings, journals, documents, stages, stopping)
    finally:
        if indexing is not None:
            indexing.close()
        if mover is not None:
            mover.close()
        _close(stages)
        documents.close()
        journals.close()


def work_off(settings: Settings) -> None:
    """Work on what a data folder holds until nothing is left; for commands without a service.

    Raises
    ------
    JournalError
        When the folder is in use, or cannot be written.

    """
    journals = EmbeddedJournals(settings.data, groups=_groups(settings))
    documents = EmbeddedDocuments(settings.data)
    put_all_settings(documents, settings.deployments)
    stages = _stages(settings, journals, documents)
    try:
        # Then twice more as if nothing had come for a while: a half whose deadline is long over
        # must not wait for a service to be stored as the orphan that it is.
        for later_ns in (0, _REST_NS, 2 * _REST_NS):
            while [stage for stage in stages if stage.step(time.time_ns() + later_ns)]:
                pass
    finally:
        _close(stages)
        documents.close()
        journals.close()


def open_stages(
    settings: Settings, open_things: ExitStack
) -> tuple[EmbeddedJournals, EmbeddedDocuments, list[Stage]]:
    """Open a data folder for a command, with the stages that work on it.

    Raises
    ------
    JournalError
        When the folder is in use, or cannot be written.

    """
    journals = EmbeddedJournals(settings.data, groups=_groups(settings))
    open_things.callback(journals.close)
    documents = EmbeddedDocuments(settings.data)
    open_things.callback(documents.close)
    put_all_settings(documents, settings.deployments)
    stages = _stages(settings, journals, documents)
    open_things.callback(_close, stages)
    indexing = _indexing(settings, journals, documents)
    if indexing is not None:
        open_things.callback(indexing.close)
        stages.append(indexing)
    return journals, documents, stages


def _stages(
    settings: Settings, journals: EmbeddedJournals, documents: EmbeddedDocuments
) -> list[Stage]:
    search = settings.store.elasticsearch
    return [
        DecodingStage(
            journals,
            documents,
            orphan_after_s=settings.pairing.orphan_after,
            max_inflated_bytes=settings.limits.decompressed,
            notes_label_changes=search is not None,
            notes_replies=search is not None and search.seldon is not None,
        ),
        *_storing(settings, journals, documents),
    ]


def _storing(
    settings: Settings, journals: EmbeddedJournals, documents: EmbeddedDocuments
) -> list[Stage]:
    """Return the stages that keep rows and their scores in the lake, or count what goes by."""
    note_store(settings, documents)
    if not settings.store.lake:
        detection = DetectionStage(journals, documents, WaitingScores(), settings.data)
        return [CountingStage(journals), detection]
    lake = Lake(settings.data, reserve_bytes=2 * settings.limits.disk_free)
    return [
        StoringStage(journals, documents, lake),
        DetectionStage(journals, documents, Lake(settings.data), settings.data),
    ]


def _close(stages: list[Stage]) -> None:
    """Wait for merges that are under way: they read what is closed next."""
    for stage in stages:
        if isinstance(stage, StoringStage):
            stage.close()


def _groups(settings: Settings) -> tuple[str, ...]:
    """Return who reads what was decoded: it is kept until all of them have it."""
    indexing = () if settings.store.elasticsearch is None else (INDEXING,)
    return (STORING, DETECTION, *indexing)


def _indexing(
    settings: Settings, journals: EmbeddedJournals, documents: EmbeddedDocuments
) -> "IndexingStage | None":
    if settings.store.elasticsearch is None:
        return None
    # Who has no search server does not wait for what it needs.
    from sidelight.service._indexing import open_indexing  # noqa: PLC0415

    return open_indexing(settings.store.elasticsearch, settings, journals, documents)


def _open(settings: Settings, stopping: threading.Event) -> EmbeddedJournals:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return EmbeddedJournals(settings.data, groups=_groups(settings))
        except FolderInUse:
            if stopping.wait(_PAUSE_S) or time.monotonic() > deadline:
                raise


def _work(
    settings: Settings,
    journals: EmbeddedJournals,
    documents: EmbeddedDocuments,
    stages: list[Stage],
    stopping: threading.Event,
) -> None:
    folder = RunFolder(settings.data)
    marked_s = 0.0
    published: dict[tuple[str, Labels], float] = {}
    idle_s = _SHORTEST_IDLE_S
    while not stopping.is_set():
        worked = [_step(stage, stopping) for stage in stages]
        now_s = time.monotonic()
        if now_s - marked_s > _MARK_S:
            marked_s = now_s
            folder.mark_consumer()
            try:
                lags = _lags(journals, stages)
                if lags != published:
                    # Nothing is written where nothing happens.
                    documents.put([gauges_document("lag", lags)])
                    published = lags
            except JournalError as error:
                # A full disk costs a gauge, not the process: what came waits for room.
                log.warning("lag not published", extra={"reason": str(error)})
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


def _lags(journals: Journals, stages: list[Stage]) -> dict[tuple[str, Labels], float]:
    events, inferences = journals.ends("events"), journals.ends("inferences")
    lags = {
        DECODING: (events, journals.positions(DECODING, "events")),
        STORING: (inferences, journals.positions(STORING, "inferences")),
        DETECTION: (inferences, journals.positions(DETECTION, "inferences")),
    }
    if any(stage.name == INDEXING for stage in stages):
        lags[INDEXING] = inferences, journals.positions(INDEXING, "inferences")
    return {
        ("journal_lag_events", (("consumer", group),)): float(
            sum(end - positions.get(partition, 0) for partition, end in ends.items())
        )
        for group, (ends, positions) in lags.items()
    }
