"""What the commands ``query`` and ``export`` read: a data folder, served or not."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from sidelight.adapters import EmbeddedDocuments, ExportFormat, Inferences, QueryStore
from sidelight.service._access_log import AccessLog, command_entry
from sidelight.service._erased import find_erased
from sidelight.service._names import full_name
from sidelight.service._query_store import open_query_store, refuse_without_lake
from sidelight.service._raw_events import RawEvents
from sidelight.service._settings import Settings
from sidelight.service.errors import (
    BadRequest,
    NoDataFolder,
    NotFound,
    ServiceError,
)

Filters = Mapping[str, Any]
"""Parameters of the routes by their names there; what is None is not asked for."""

# Of raw payloads that were compressed; whoever reads a folder by hand has no settings of a service.
_MAX_INFLATED_BYTES = 256 << 20


class QuerySource(Protocol):
    """Answers questions of the command line."""

    def find(self, filters: Filters) -> tuple[list[dict[str, Any]], str | None]:
        """Return one page as the API shows it, and the cursor of the next."""
        ...

    def get(self, inference_id: str, *, raw: bool) -> dict[str, Any]:
        """Return one inference; raise ``NotFound`` when there is none."""
        ...

    def export(self, chosen: ExportFormat, filters: Filters) -> Iterator[bytes]:
        """Return everything that matches, as a stream."""
        ...

    def close(self) -> None:
        """Give back what is open."""
        ...


class FolderSource:
    """A data folder; the service on it may run. Every question is in the access log first.

    Parameters
    ----------
    data : Path
        The folder.
    reason : str or None
        Why it is asked; None for what the environment says.
    settings : Settings, optional
        Of the service, where a search server answers.

    Raises
    ------
    ConfigurationError
        If there is no data folder, or its rows are elsewhere and the settings do not say where.

    """

    def __init__(
        self, data: Path, *, reason: str | None = None, settings: Settings | None = None
    ) -> None:
        if not (data / "state.db").exists():
            raise NoDataFolder(data)
        self._data = data
        self._reason = reason
        self._log = AccessLog(data)
        self._documents = EmbeddedDocuments(data)
        self._inferences = self._store(settings)

    def _store(self, settings: Settings | None) -> QueryStore:
        try:
            if settings is not None:
                return open_query_store(settings, self._documents)
            refuse_without_lake(self._documents)
            return Inferences(self._data, self._documents)
        except BaseException:
            self._documents.close()
            raise

    def find(self, filters: Filters) -> tuple[list[dict[str, Any]], str | None]:
        """Return one page as the API shows it, and the cursor of the next."""
        self._note("query", filters)
        items, following = self._inferences.find(**_arguments(filters))
        return [item.to_json() for item in items], following

    def get(self, inference_id: str, *, raw: bool) -> dict[str, Any]:
        """Return one inference; raise ``NotFound`` or ``Gone`` when there is none."""
        self._note("query", {"id": inference_id, "raw": raw})
        inference = self._inferences.get(inference_id)
        if inference is None:
            erased = find_erased(self._documents, inference_id)
            if erased is not None:
                raise erased.problem(f"inference {inference_id}")
            raise NotFound(f"no inference {inference_id}", hint="sidelight query finds them")
        value = inference.to_json()
        if raw:
            events = RawEvents(self._data, self._documents, max_inflated_bytes=_MAX_INFLATED_BYTES)
            try:
                value["raw"] |= events.both(inference)
            finally:
                events.close()
        return value

    def export(self, chosen: ExportFormat, filters: Filters) -> Iterator[bytes]:
        """Return everything that matches, as a stream."""
        self._note("export", {**filters, "format": chosen})
        return self._inferences.export(format=chosen, **_arguments(filters))

    def close(self) -> None:
        """Close the files."""
        self._inferences.close()
        self._documents.close()

    def _note(self, command: str, filters: Filters) -> None:
        entry = command_entry(command, filters)
        if self._reason is not None:
            entry["reason"] = self._reason
        try:
            self._log.append(entry)
        except OSError as error:
            raise ServiceError(
                f"the access log cannot be written: {error.strerror}; nothing is shown"
            ) from error


def _arguments(filters: Filters) -> dict[str, Any]:
    given = {name: value for name, value in filters.items() if value is not None}
    if "from" in given:
        given["from_"] = given.pop("from")
    if "deployment" in given:
        try:
            given["deployment"] = full_name(given["deployment"])
        except ValueError as error:
            raise BadRequest(f"--deployment: {error}") from error
    return given
