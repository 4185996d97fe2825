"""The methods of gRPC that are inferences, and what their requests say of the model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from sidelight.logger._grpc_head import Metadata
from sidelight.logger._grpc_message import Called, called, called_by_spec

_SELDON_KEY: Final = "seldon"


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method whose calls are captured.

    Parameters
    ----------
    path : bytes
        As on the wire, ``/package.Service/Method``.
    is_streaming : bool, default False
        Whether requests and answers are streams.
    read : callable of bytes to Called
        What a request says of the model and of itself.

    """

    path: bytes
    is_streaming: bool = False
    read: Callable[[bytes], Called]

    def called(self, message: bytes, metadata: Metadata) -> Called:
        """Return what a request says of the model; Seldon's says it in its metadata."""
        named = self.read(message)
        if named.model or self.read is not _nothing:
            return named
        model = next((value for key, value in metadata if key == _SELDON_KEY), "")
        return named._replace(model=model.encode()) if isinstance(model, str) else named

    def target(self, message: Called) -> bytes:
        """Return the path with the model as a query: what names a deployment is in one place."""
        return _target(self.path, message.model, message.version)


@lru_cache(maxsize=1024)
def _target(path: bytes, model: bytes, version: bytes) -> bytes:
    if not model:
        return path
    target = path + b"?model=" + quote(model, safe="").encode()
    return target + b"&version=" + quote(version, safe="").encode() if version else target


def _nothing(_: bytes) -> Called:
    return Called()


METHODS: Final = {
    method.path.decode(): method
    for method in (
        Method(path=b"/inference.GRPCInferenceService/ModelInfer", read=called),
        Method(
            path=b"/inference.GRPCInferenceService/ModelStreamInfer",
            is_streaming=True,
            read=called,
        ),
        Method(path=b"/seldon.protos.Seldon/Predict", read=_nothing),
        Method(path=b"/seldon.protos.Model/Predict", read=_nothing),
        Method(path=b"/tensorflow.serving.PredictionService/Predict", read=called_by_spec),
    )
}
"""By path."""

UNARY: Final = frozenset(
    {path for path, method in METHODS.items() if not method.is_streaming}
    | {
        f"/inference.GRPCInferenceService/{name}"
        for name in (
            *("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata"),
            *("ModelConfig", "ModelStatistics", "RepositoryIndex"),
            *("RepositoryModelLoad", "RepositoryModelUnload"),
        )
    }
    | {"/grpc.health.v1.Health/Check"}
)
"""Paths of methods with one message on each side; of any other method nothing is known."""
