"""Capture of gRPC, in a proxy or inside of the server; needs the extra ``sidelight[grpc]``.

``CaptureInterceptor`` goes into a server of ``grpc.aio``, ``BlockingCaptureInterceptor`` into one
with threads. ``serve_grpc`` runs a proxy in front of any server.
"""

try:
    import grpc as _grpc  # noqa: F401 - the message below says what is missing
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "sidelight.logger.grpc: expected the package grpcio, got none; "
        "install it with: pip install 'sidelight[grpc]'",
        name=error.name,
    ) from error

from sidelight.logger._grpc_body import GrpcCounts, GrpcLimits
from sidelight.logger._grpc_interceptor import BlockingCaptureInterceptor, CaptureInterceptor
from sidelight.logger._grpc_proxy import GrpcProxy, serve_grpc

__all__ = [
    "BlockingCaptureInterceptor",
    "CaptureInterceptor",
    "GrpcCounts",
    "GrpcLimits",
    "GrpcProxy",
    "serve_grpc",
]
