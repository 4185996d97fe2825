"""The process of the consumer: what came is decoded and stored, what is old or erased goes."""

import logging
import sys

from sidelight.adapters import AdapterError, EmbeddedDocuments, Lake
from sidelight.logger import Documents, Journals
from sidelight.logger.errors import JournalError
from sidelight.service._deployments import put_all_settings
from sidelight.service._erasing import through_door
from sidelight.service._freed_memory import keep_freed_memory
from sidelight.service._gauges import gauges_document
from sidelight.service._lake_place import open_mover
from sidelight.service._metrics import Labels
from sidelight.service._pace import Pace
from sidelight.service._process import say_ready
from sidelight.service._run_folder import CONSUMER, RunFolder
from sidelight.service._settings import Settings
from sidelight.service._stage import DECODING
from sidelight.service._stage_erasing import ErasingStage
from sidelight.service._stage_loop import (
    keep_what_is_there,
    open_journals,
    until_terminated,
    work,
)
from sidelight.service._stage_retention import RetentionStage
from sidelight.service._stages import (
    close_stages,
    groups_of,
    indexing_stage,
    storing_stages,
)
from sidelight.service._supervisor import CANNOT_START
from sidelight.service.errors import ConfigurationError

log = logging.getLogger(__name__)


def run_consumer(settings: Settings) -> None:
    """Work on what the door stored until SIGTERM."""
    stopping = until_terminated()
    keep_freed_memory()
    try:
        journals = open_journals(settings, "state", stopping)
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
    pace = Pace(journals)
    stages = storing_stages(settings, journals, documents, must_wait=pace.must_wait)
    stages.append(RetentionStage(journals, documents, Lake(settings.data), settings))
    append = through_door(settings.data)
    stages.append(
        ErasingStage(journals, documents, Lake(settings.data), settings, list(stages), append)
    )
    try:
        indexing = indexing_stage(settings, journals, documents)
    except (AdapterError, ConfigurationError) as error:
        log.error("%s", error)  # noqa: TRY400 - a sentence for a person, no traceback
        sys.exit(CANNOT_START)
    if indexing is not None:
        stages.append(indexing)
    keep_what_is_there()
    signs = _Signs(settings, journals, documents)
    signs.mark()
    say_ready()
    if mover is not None:
        mover.start()
    try:
        work(stages, stopping, signs.give)
    finally:
        if indexing is not None:
            indexing.close()
        if mover is not None:
            mover.close()
        close_stages(stages)
        documents.close()
        journals.close()


class _Signs:
    """What the consumer tells of itself and of all consumers each second."""

    def __init__(self, settings: Settings, journals: Journals, documents: Documents) -> None:
        self._folder = RunFolder(settings.data)
        self._groups = groups_of(settings)
        self._journals = journals
        self._documents = documents
        self._published: dict[tuple[str, Labels], float] = {}

    def mark(self) -> None:
        """Say that the consumer is alive."""
        self._folder.mark(CONSUMER)

    def give(self) -> None:
        """Say so, and how far each group is behind."""
        self.mark()
        try:
            lags = _lags(self._journals, self._groups)
            if lags != self._published:
                # Nothing is written where nothing happens.
                self._documents.put([gauges_document("lag", lags)])
                self._published = lags
        except JournalError as error:
            # A full disk costs a gauge, not the process: what came waits for room.
            log.warning("lag not published", extra={"reason": str(error)})


def _lags(journals: Journals, groups: tuple[str, ...]) -> dict[tuple[str, Labels], float]:
    events, inferences = journals.ends("events"), journals.ends("inferences")
    lags = {DECODING: (events, journals.positions(DECODING, "events"))}
    lags |= {group: (inferences, journals.positions(group, "inferences")) for group in groups}
    return {
        ("journal_lag_events", (("consumer", group),)): float(
            sum(end - positions.get(partition, 0) for partition, end in ends.items())
        )
        for group, (ends, positions) in lags.items()
    }
