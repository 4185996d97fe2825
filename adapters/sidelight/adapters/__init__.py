"""The outside world behind our protocols: dialects, journals, stores, model clients."""

from sidelight.adapters._decoding import Decoder, Decoding
from sidelight.adapters._lake import Lake
from sidelight.adapters._lake_compaction import Compaction
from sidelight.adapters._lake_file import LakeFile
from sidelight.adapters._lake_manifest import Manifest
from sidelight.adapters._lake_scores import Scores
from sidelight.adapters._query import Inferences
from sidelight.adapters.errors import AdapterError, LakeError, QueryError, WhereError

__all__ = [
    "AdapterError",
    "Compaction",
    "Decoder",
    "Decoding",
    "Inferences",
    "Lake",
    "LakeError",
    "LakeFile",
    "Manifest",
    "QueryError",
    "Scores",
    "WhereError",
]
