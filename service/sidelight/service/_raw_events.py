"""The bytes of an inference's events, as they lie in the archive."""

import base64
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

from sidelight.logger import Documents, EventLimits
from sidelight.logger._archived_event import ArchivedEvent, archived_event
from sidelight.logger._checkpoint import Checkpoint
from sidelight.logger._sealed_marks import ERASED_TYPE
from sidelight.logger._segments import SegmentReader
from sidelight.payloads import Inference, RawRef
from sidelight.service._erased import find_erased
from sidelight.service.errors import Gone, NotFound

Side = Literal["request", "response"]
SIDES: Final[tuple[Side, ...]] = ("request", "response")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class RawEvents:
    """Finds the events of inferences in the archive, for any number of threads.

    Parameters
    ----------
    data : Path
        The data folder.
    documents : Documents
        What was erased.
    max_inflated_bytes : int
        Bound of a payload after decompression.

    """

    def __init__(self, data: Path, documents: Documents, *, max_inflated_bytes: int) -> None:
        self._data = data
        self._documents = documents
        self._limits = EventLimits(max_inflated_bytes=max_inflated_bytes)
        self._lock = threading.Lock()
        self._reader = SegmentReader(data)

    def close(self) -> None:
        """Close the archive's files."""
        with self._lock:
            self._reader.close()

    def find(self, inference: Inference, side: Side) -> ArchivedEvent:
        """Return one half.

        Raises
        ------
        NotFound
            If that half never came.
        Gone
            If its segment was deleted on purpose, or it was erased.
        JournalDamaged
            If the archive is not what was written.

        """
        text = inference.request_ref if side == "request" else inference.response_ref
        if text is None:
            raise NotFound(
                f"the {side} of inference {inference.id} never came",
                hint=f"orphan: {inference.orphan}",
            )
        ref = RawRef.parse(text)
        with self._lock:
            record = self._reader.record(ref.position)
        found = None if record is None else archived_event(record, ref.index, self._limits)
        if found is None or found.event.type == ERASED_TYPE:
            raise self._absent(ref, inference.id, side)
        return found

    def both(self, inference: Inference) -> dict[str, Any]:
        """Return both halves as JSON with base64; null for one that is not there, and why.

        Raises
        ------
        NotFound, Gone
            If neither is there.

        """
        found: dict[str, Any] = dict.fromkeys(SIDES)
        reasons: dict[str, NotFound | Gone] = {}
        for side in SIDES:
            try:
                found[side] = _json(self.find(inference, side))
            except (NotFound, Gone) as error:
                reasons[side] = error
        if len(reasons) == len(SIDES):
            # What was there once says more than what never came.
            raise max(reasons.values(), key=lambda error: isinstance(error, Gone))
        return {**found, "missing": {side: error.detail for side, error in reasons.items()}}

    def _absent(self, ref: RawRef, inference_id: str, side: Side) -> NotFound | Gone:
        what = f"{side} of inference {inference_id}"
        erased = find_erased(self._documents, inference_id)
        if erased is not None:
            return erased.problem(what)
        checkpoint = Checkpoint.load(self._data) or Checkpoint()
        for segment in checkpoint.segments:
            if segment.is_retired and segment.first <= ref.position < segment.next_position:
                when = _time(segment.retired_ns)
                return Gone(
                    f"the raw bytes of the {what} were deleted at {when}: {segment.why}",
                    hint="what was decoded of them stays in the inference itself",
                )
        return NotFound(
            f"the archive has no raw bytes of the {what}",
            expected=f"record {ref}",
            hint="sidelight verify says whether the archive is whole",
        )


def _json(found: ArchivedEvent) -> dict[str, Any]:
    event = found.event
    return {
        "received": _time(event.received_ns),
        "head": base64.b64encode(found.head).decode(),
        "body": base64.b64encode(found.body).decode(),
        "member": event.ref.index if found.is_member else None,
        "content_type": event.datacontenttype,
        "payload": base64.b64encode(event.data).decode(),
    }


def _time(nanoseconds: int) -> str:
    moment = _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
