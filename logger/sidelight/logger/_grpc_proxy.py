"""A proxy of gRPC: every call is passed on as it comes, inferences are captured."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

import grpc
import grpc.aio

from sidelight.logger._exchange import Tap
from sidelight.logger._grpc_body import GrpcLimits
from sidelight.logger._grpc_call import UnaryCalls
from sidelight.logger._grpc_defer import Defer
from sidelight.logger._grpc_method import UNARY
from sidelight.logger._grpc_recorder import Recorder
from sidelight.logger._grpc_stream_call import StreamCalls

log = logging.getLogger(__name__)

_MAX_METADATA_BYTES: Final = 1 << 20
_COMMON: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
)
_SERVER: Final = (
    *_COMMON,
    # Two servers on one port would share its calls without anybody noticing.
    ("grpc.so_reuseport", 0),
    # How often a client may ask whether the connection is alive is the model server's affair.
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
)
_CHANNEL: Final = (
    *_COMMON,
    # gRPC waits up to two minutes between attempts. A model server beside us that was restarted
    # must be found at once, as a new client finds it.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # The model server is beside us, whatever the environment says of a proxy to the world.
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
)


class GrpcProxy:
    """A running proxy.

    Attributes
    ----------
    address : str
        What it listens on; with the port that it was given.
    counts : GrpcCounts
        What happened to calls and captures.

    """

    def __init__(self, server: Any, channel: Any, *, address: str, recorder: Recorder) -> None:
        self._server = server
        self._channel = channel
        self.address = address
        self.counts = recorder.counts
        self._recorder = recorder

    async def drain(self, grace_s: float) -> int:
        """Take no further call, wait for those in work, cut what is left after the grace.

        Returns
        -------
        int
            Number of calls that had to be cut.

        """
        stopping = asyncio.ensure_future(self._server.stop(grace_s or None))
        # The grace ends inside of `stop`, which does not tell what it cut.
        done, _ = await asyncio.wait({stopping}, timeout=max(grace_s - _MARGIN_S, 0))
        n_left = 0 if done else self.counts.in_flight
        await stopping
        await self._channel.close()
        await asyncio.to_thread(self._recorder.close)
        return n_left

    async def close(self) -> None:
        """Cut everything."""
        await self.drain(0)


_MARGIN_S: Final = 0.05


async def serve_grpc(
    listen: str,
    upstream: str,
    tap: Tap,
    *,
    limits: GrpcLimits | None = None,
    credentials: "grpc.ChannelCredentials | None" = None,
    server_credentials: "grpc.ServerCredentials | None" = None,
    options: Sequence[tuple[str, Any]] = (),
) -> GrpcProxy:
    """Pass calls of gRPC on to a model server and capture inferences.

    Every method is passed on, known or not, with its metadata, deadline and cancellation;
    messages of any size, each as it comes. Compression ends at the proxy, as it does at any hop.
    Captured are ``ModelInfer`` and ``ModelStreamInfer`` of the Open Inference Protocol, and
    ``Predict`` of Seldon Core 1 and TensorFlow Serving.

    Parameters
    ----------
    listen : str
        ``HOST:PORT`` (port 0 takes a free one) or ``unix:PATH``.
    upstream : str
        ``HOST:PORT`` or ``unix:PATH`` of the model server.
    tap : Tap
        Takes exchanges; called on the running loop.
    limits : GrpcLimits, optional
        Bounds of what is kept.
    credentials : grpc.ChannelCredentials, optional
        TLS to the model server; plain text without.
    server_credentials : grpc.ServerCredentials, optional
        TLS of callers; plain text without.
    options : sequence of (str, value), optional
        Further channel arguments of the connection to the model server, such as
        ``grpc.ssl_target_name_override``.

    Returns
    -------
    GrpcProxy
        Running. Whether the model server can be reached shows with the first call.

    Raises
    ------
    OSError
        When the address cannot be listened on.

    """
    recorder = Recorder(tap, limits=limits)
    channel_options = [*_CHANNEL, *options]
    channel = (
        grpc.aio.insecure_channel(upstream, options=channel_options)
        if credentials is None
        else grpc.aio.secure_channel(upstream, credentials, options=channel_options)
    )
    server = grpc.aio.server(options=_SERVER)
    server.add_generic_rpc_handlers((_Handler(channel, recorder),))
    port = _bound(server, listen, server_credentials)
    if not port:
        await channel.close()
        raise OSError(f"listen: expected an address that is free, got {listen!r}")
    await server.start()
    address = listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"
    log.info("gRPC proxy listens", extra={"address": address, "upstream": upstream})
    return GrpcProxy(server, channel, address=address, recorder=recorder)


def _bound(server: Any, listen: str, credentials: "grpc.ServerCredentials | None") -> int:
    """Return the port that a server was given; 0 when the address cannot be had."""
    try:
        if credentials is None:
            return int(server.add_insecure_port(listen))
        return int(server.add_secure_port(listen, credentials))
    except RuntimeError:
        return 0


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc] # grpc has no types
    """Answers for every method with one of two relays: messages stay bytes."""

    def __init__(self, channel: Any, recorder: Recorder) -> None:
        self._channel = channel
        self._recorder = recorder
        self._defer = Defer.on(asyncio.get_running_loop())
        # Callers choose methods: only those that are known are remembered.
        self._known = {path: self._unary(path) for path in UNARY}

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of one call."""
        path = handler_call_details.method
        return self._known.get(path) or grpc.stream_stream_rpc_method_handler(
            StreamCalls(self._channel, self._recorder, path, self._defer).relay
        )

    def _unary(self, path: str) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            UnaryCalls(self._channel, self._recorder, path, self._defer).relay
        )
