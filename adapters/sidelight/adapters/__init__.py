"""The outside world behind our protocols: dialects, journals, stores, model clients."""

from sidelight.adapters._decoding import Decoder, Decoding
from sidelight.adapters._embedded import EmbeddedJournals
from sidelight.adapters._embedded_documents import EmbeddedDocuments
from sidelight.adapters._lake import Lake
from sidelight.adapters._lake_compaction import Compaction
from sidelight.adapters._lake_file import LakeFile
from sidelight.adapters._lake_manifest import Manifest
from sidelight.adapters._lake_scores import Scores
from sidelight.adapters._model_endpoint import Endpoint, http_client
from sidelight.adapters._model_outputs import OutputChoice
from sidelight.adapters._model_v1 import V1Model, v1_url
from sidelight.adapters._model_v2 import V2Model, v2_url
from sidelight.adapters._query import Inferences
from sidelight.adapters.errors import AdapterError, LakeError, QueryError, WhereError

__all__ = [
    "AdapterError",
    "Compaction",
    "Decoder",
    "Decoding",
    "EmbeddedDocuments",
    "EmbeddedJournals",
    "Endpoint",
    "Inferences",
    "Lake",
    "LakeError",
    "LakeFile",
    "Manifest",
    "OutputChoice",
    "QueryError",
    "Scores",
    "V1Model",
    "V2Model",
    "WhereError",
    "http_client",
    "v1_url",
    "v2_url",
]
