"""Records of the archive as they came, sealed or not."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sidelight.logger._journal import EventRecord
from sidelight.logger._sealed_marks import ERASED_HEAD, is_sealed
from sidelight.logger.errors import SealingKeyError

# Most processes open nothing and need not wait for what it takes.
if TYPE_CHECKING:
    from sidelight.logger._key_reader import KeyReader

log = logging.getLogger(__name__)

APART: Final = "apart"
"""Stands in the folder ``keys/`` of a copy whose keys are kept apart from it, on purpose."""


class SealedRecords:
    """Opens sealed records with the keys of a data folder.

    Parameters
    ----------
    data : Path
        The data folder.

    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._keys: KeyReader | None = None

    def close(self) -> None:
        """Close the key files."""
        if self._keys is not None:
            self._keys.close()
            self._keys = None

    def opened(self, records: list[EventRecord]) -> list[EventRecord]:
        """Return the records as they came; what is erased stands there as ``io.sidelight.erased``.

        Raises
        ------
        SealingKeyError
            When there are sealed records and their keys cannot be had.

        """
        # Most folders have none: this is all that they pay.
        if not any([is_sealed(record.body) for record in records]):  # noqa: C419 - a list is half the time
            return records
        keys = self._key_reader()
        keys.refresh()
        return [self._open(item, keys) if is_sealed(item.body) else item for item in records]

    def _key_reader(self) -> "KeyReader":
        if self._keys is None:
            from sidelight.logger._key_reader import KeyReader  # noqa: PLC0415 - see above

            if not (self._data / "keys" / "ring").exists() and not are_apart(self._data):
                raise SealingKeyError(
                    "keys/: expected the keys of sealed events, got none; restore the folder from "
                    f"its own backup, or make an empty file keys/{APART} to go on without what is "
                    "sealed"
                )
            self._keys = KeyReader(self._data)
        return self._keys

    def _open(self, record: EventRecord, keys: "KeyReader") -> EventRecord:
        from sidelight.logger._sealed_body import (  # noqa: PLC0415 - see above
            SealedBody,
            SealedBodyError,
            open_body,
        )

        try:
            head, body, _ = open_body(SealedBody.decode(record.body), keys.find)
        except SealedBodyError as error:
            # As damaged bytes: they hide themselves, not what stands behind them.
            log.error(  # noqa: TRY400 - a sentence, no traceback
                "a sealed event cannot be opened",
                extra={"position": record.position, "reason": str(error)},
            )
            head, body = ERASED_HEAD, b""
        return EventRecord(record.partition, record.position, record.received_ns, head, body)


def are_apart(data: Path) -> bool:
    """Whether the keys of a data folder are kept elsewhere on purpose."""
    return (data / "keys" / APART).exists()
