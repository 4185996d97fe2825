"""The stages of a service as it is configured, for its processes and for commands without one."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from sidelight.adapters import (
    EmbeddedDocuments,
    EmbeddedJournals,
    Lake,
    Manifest,
    ScoreTable,
    WaitingScores,
)
from sidelight.service._deployments import put_all_settings
from sidelight.service._query_store import note_store
from sidelight.service._settings import Settings
from sidelight.service._stage import DETECTION, INDEXING, STORING, Stage
from sidelight.service._stage_counting import CountingStage
from sidelight.service._stage_decoding import DecodingStage
from sidelight.service._stage_storing import StoringStage

if TYPE_CHECKING:
    from sidelight.service._stage_indexing import IndexingStage

# Longer than any stage waits before it takes a journal for idle.
_REST_NS: Final = 2_000_000_000


def groups_of(settings: Settings) -> tuple[str, ...]:
    """Return who reads what was decoded: it is kept until all of them have it."""
    indexing = () if settings.store.elasticsearch is None else (INDEXING,)
    return (STORING, DETECTION, *indexing)


def storing_stages(
    settings: Settings,
    journals: EmbeddedJournals,
    documents: EmbeddedDocuments,
    *,
    must_wait: Callable[[int], bool] | None = None,
) -> list[Stage]:
    """Return the stages that decode, and that keep rows in the lake or count what goes by.

    Decoding leaves what came where it is as long as ``must_wait`` says so.
    """
    search = settings.store.elasticsearch
    decoding = DecodingStage(
        journals,
        documents,
        orphan_after_s=settings.pairing.orphan_after,
        max_inflated_bytes=settings.limits.decompressed,
        notes_label_changes=search is not None,
        notes_replies=search is not None and search.seldon is not None,
        must_wait=must_wait,
    )
    note_store(settings, documents)
    if not settings.store.lake:
        return [decoding, CountingStage(journals)]
    lake = Lake(settings.data, reserve_bytes=2 * settings.limits.disk_free)
    return [decoding, StoringStage(journals, documents, lake)]


def detection_stages(
    settings: Settings, journals: EmbeddedJournals, documents: EmbeddedDocuments
) -> list[Stage]:
    """Return the stages that judge rows, and that change what judging goes on from."""
    # Who does not detect needs none of the statistics.
    from sidelight.service._stage_detection import DetectionStage  # noqa: PLC0415
    from sidelight.service._stage_forgetting import ForgettingStage  # noqa: PLC0415

    scores: ScoreTable = WaitingScores()
    if settings.store.lake:
        scores = lake = Lake(settings.data)
        lake.sweep_scores(Manifest(documents))
    detection = DetectionStage(journals, documents, scores, settings.data)
    return [ForgettingStage(journals, documents, settings.data, detection), detection]


def indexing_stage(
    settings: Settings, journals: EmbeddedJournals, documents: EmbeddedDocuments
) -> "IndexingStage | None":
    """Return the stage that fills the search server; None where there is none.

    Raises
    ------
    AdapterError, ConfigurationError
        When its client or a secret is missing.

    """
    if settings.store.elasticsearch is None:
        return None
    # Who has no search server does not wait for what it needs.
    from sidelight.service._indexing import open_indexing  # noqa: PLC0415

    return open_indexing(settings.store.elasticsearch, settings, journals, documents)


def close_stages(stages: list[Stage]) -> None:
    """Wait for merges that are under way: they read what is closed next."""
    for stage in stages:
        if isinstance(stage, StoringStage):
            stage.close()


def open_stages(
    settings: Settings, open_things: ExitStack, *, with_indexing: bool = True
) -> tuple[EmbeddedJournals, EmbeddedDocuments, list[Stage]]:
    """Open a data folder for a command, with all stages that work on it.

    Raises
    ------
    JournalError
        When the folder is in use, or cannot be written.

    """
    journals = EmbeddedJournals(settings.data, groups=groups_of(settings))
    open_things.callback(journals.close)
    documents = EmbeddedDocuments(settings.data)
    open_things.callback(documents.close)
    put_all_settings(documents, settings.deployments)
    stages = storing_stages(settings, journals, documents)
    open_things.callback(close_stages, stages)
    stages += detection_stages(settings, journals, documents)
    indexing = indexing_stage(settings, journals, documents) if with_indexing else None
    if indexing is not None:
        open_things.callback(indexing.close)
        stages.append(indexing)
    return journals, documents, stages


def work_off(settings: Settings) -> None:
    """Work on what a data folder holds until nothing is left; for commands without a service.

    Raises
    ------
    JournalError
        When the folder is in use, or cannot be written.

    """
    with ExitStack() as open_things:
        _, _, stages = open_stages(settings, open_things, with_indexing=False)
        # Then twice more as if nothing had come for a while: a half whose deadline is long over
        # must not wait for a service to be stored as the orphan that it is.
        for later_ns in (0, _REST_NS, 2 * _REST_NS):
            while [stage for stage in stages if stage.step(time.time_ns() + later_ns)]:
                pass
