"""What the handlers of the API share."""

from dataclasses import dataclass

from fastapi import Request

from sidelight.adapters import EmbeddedDocuments, QueryStore
from sidelight.service._explaining import Explaining
from sidelight.service._ingest_client import IngestClient
from sidelight.service._raw_events import RawEvents
from sidelight.service._settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One data folder, opened for queries, with the ways to the door and to live models."""

    settings: Settings
    documents: EmbeddedDocuments
    inferences: QueryStore
    raw: RawEvents
    explaining: Explaining
    ingest: IngestClient

    async def close(self) -> None:
        """End what runs in the background and close the files."""
        self.explaining.close()
        await self.ingest.close()
        self.raw.close()
        self.documents.close()


def context_of(request: Request) -> Context:
    """Return the context of the application that handles the request."""
    context: Context = request.app.state.context
    return context
