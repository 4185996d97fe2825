"""The process that judges rows, beside the consumer, from its own position in ``inferences``."""

import logging
import sys
from typing import Final

from sidelight.adapters import EmbeddedDocuments
from sidelight.logger.errors import JournalError
from sidelight.service._freed_memory import keep_freed_memory
from sidelight.service._process import say_ready
from sidelight.service._run_folder import RunFolder
from sidelight.service._settings import Settings
from sidelight.service._stage import DETECTION
from sidelight.service._stage_loop import (
    keep_what_is_there,
    open_journals,
    until_terminated,
    work,
)
from sidelight.service._stages import detection_stages
from sidelight.service._supervisor import CANNOT_START

log = logging.getLogger(__name__)

# Whoever reads the manifest goes back ten seconds for entries that were committed late: a commit
# that takes longer, behind a database that is written anew, is better done again.
_BUSY_S: Final = 8.0


def run_detection(settings: Settings) -> None:
    """Judge what the consumer decoded until SIGTERM."""
    stopping = until_terminated()
    keep_freed_memory()
    try:
        journals = open_journals(settings, DETECTION, stopping, busy_s=_BUSY_S)
    except JournalError as error:
        log.error("%s", error)  # noqa: TRY400 - a sentence for a person, no traceback
        sys.exit(CANNOT_START)
    documents = EmbeddedDocuments(settings.data)
    stages = detection_stages(settings, journals, documents)
    folder = RunFolder(settings.data)
    keep_what_is_there()
    say_ready()
    try:
        # It counts as alive after its first steps: one that dies of them each time never does.
        work(stages, stopping, lambda: folder.mark(DETECTION))
    finally:
        documents.close()
        journals.close()
