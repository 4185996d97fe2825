"""The outside world behind our protocols: dialects, journals, stores, model clients, sinks."""

from sidelight.adapters._decoding import Decoder, Decoding
from sidelight.adapters._elastic import ElasticStore
from sidelight.adapters._elastic_bulk import StoppedError
from sidelight.adapters._elastic_client import ElasticClient, ElasticConnection
from sidelight.adapters._elastic_client import connect as connect_elastic
from sidelight.adapters._elastic_documents import AlarmSpan, Joined
from sidelight.adapters._elastic_expiry import ElasticExpiry
from sidelight.adapters._elastic_query import ElasticInferences
from sidelight.adapters._elastic_scores import ScoreReader
from sidelight.adapters._elastic_search import ElasticSearch
from sidelight.adapters._elastic_templates import IndexOptions
from sidelight.adapters._embedded import EmbeddedJournals
from sidelight.adapters._embedded_documents import EmbeddedDocuments
from sidelight.adapters._import_events import EVENT_COLUMNS, sink_events
from sidelight.adapters._import_kserve import kserve_blob
from sidelight.adapters._import_sagemaker import sagemaker_capture
from sidelight.adapters._import_seldon import seldon_log
from sidelight.adapters._lake import Lake
from sidelight.adapters._lake_compaction import Compaction
from sidelight.adapters._lake_file import LakeFile
from sidelight.adapters._lake_manifest import Manifest
from sidelight.adapters._lake_place import Place, place_of
from sidelight.adapters._lake_reading import LakeReader
from sidelight.adapters._lake_remote import Bucket, LakeUnreachable
from sidelight.adapters._lake_scores import JoinedScores, Scores
from sidelight.adapters._mlflow_signature import mlflow_schema
from sidelight.adapters._model_endpoint import Endpoint, http_client
from sidelight.adapters._model_outputs import OutputChoice
from sidelight.adapters._model_v1 import V1Model, v1_url
from sidelight.adapters._model_v2 import V2Model, v2_url
from sidelight.adapters._query import Inferences
from sidelight.adapters._query_export import ExportFormat
from sidelight.adapters._query_store import QueryStore
from sidelight.adapters._replies import detector_reply
from sidelight.adapters._seldon_layout import PredictionSchema, SeldonOptions
from sidelight.adapters._sink_files import FILE_LIMITS, FileFormat, FileSink
from sidelight.adapters._sink_files_s3 import S3Settings
from sidelight.adapters._sink_kafka import KAFKA_LIMITS, KafkaSink
from sidelight.adapters._sink_kafka_record import KafkaKey, KafkaMode
from sidelight.adapters._waiting_scores import ScoreTable, WaitingScores
from sidelight.adapters.errors import (
    AdapterError,
    ImportFileError,
    LakeError,
    MissingExtraError,
    QueryError,
    SinkError,
    StoreError,
    WhereError,
)

__all__ = [
    "EVENT_COLUMNS",
    "FILE_LIMITS",
    "KAFKA_LIMITS",
    "AdapterError",
    "AlarmSpan",
    "Bucket",
    "Compaction",
    "Decoder",
    "Decoding",
    "ElasticClient",
    "ElasticConnection",
    "ElasticExpiry",
    "ElasticInferences",
    "ElasticSearch",
    "ElasticStore",
    "EmbeddedDocuments",
    "EmbeddedJournals",
    "Endpoint",
    "ExportFormat",
    "FileFormat",
    "FileSink",
    "ImportFileError",
    "IndexOptions",
    "Inferences",
    "Joined",
    "JoinedScores",
    "KafkaKey",
    "KafkaMode",
    "KafkaSink",
    "Lake",
    "LakeError",
    "LakeFile",
    "LakeReader",
    "LakeUnreachable",
    "Manifest",
    "MissingExtraError",
    "OutputChoice",
    "Place",
    "PredictionSchema",
    "QueryError",
    "QueryStore",
    "S3Settings",
    "ScoreReader",
    "ScoreTable",
    "Scores",
    "SeldonOptions",
    "SinkError",
    "StoppedError",
    "StoreError",
    "V1Model",
    "V2Model",
    "WaitingScores",
    "WhereError",
    "connect_elastic",
    "detector_reply",
    "http_client",
    "kserve_blob",
    "mlflow_schema",
    "place_of",
    "sagemaker_capture",
    "seldon_log",
    "sink_events",
    "v1_url",
    "v2_url",
]
