"""What the API needs of a store of inferences: the lake and the search server both have it."""

from collections.abc import Iterator
from typing import Protocol

from sidelight.adapters._query_export import ExportFormat
from sidelight.payloads import Inference


class QueryStore(Protocol):
    """Stored inferences, for any number of threads; parameters and errors as in ``Inferences``."""

    def find(  # one keyword for each parameter of the route
        self,
        *,
        deployment: str | None = None,
        version: str | None = None,
        from_: str | None = None,
        to: str | None = None,
        where: str | None = None,
        order: str = "-time",
        limit: int = 100,
        cursor: str | None = None,
    ) -> tuple[list[Inference], str | None]:
        """Return one page of matching inferences with all their rows, and the next page's cursor.

        Raises
        ------
        QueryError
            If a parameter cannot be understood.
        StoreError
            If the store cannot answer now.

        """
        ...

    def get(self, inference_id: str) -> Inference | None:
        """Return one inference of any deployment, or None when there is none of that id."""
        ...

    def count(
        self,
        *,
        deployment: str | None = None,
        version: str | None = None,
        from_: str | None = None,
        to: str | None = None,
        where: str | None = None,
    ) -> int:
        """Return how many inferences match."""
        ...

    def export(
        self,
        *,
        format: ExportFormat = "jsonl",  # noqa: A002 - the name of the route's parameter
        deployment: str | None = None,
        version: str | None = None,
        from_: str | None = None,
        to: str | None = None,
        where: str | None = None,
        order: str = "time",
        limit: int | None = None,
    ) -> Iterator[bytes]:
        """Return every matching inference as a stream; errors come before the first byte."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...
