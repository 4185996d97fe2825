"""The model's door for gRPC, in the same process and with the same emitter as the one for HTTP."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidelight.logger import Tap
from sidelight.service._proxy_settings import ProxySettings
from sidelight.service._proxy_settings_sinks import TlsSettings
from sidelight.service.errors import ConfigurationError, ServiceError

if TYPE_CHECKING:
    from sidelight.logger.grpc import GrpcProxy


async def listen_for_grpc(settings: ProxySettings, tap: Tap) -> "GrpcProxy | None":
    """Listen as the section ``grpc`` says; None when there is none.

    Raises
    ------
    ServiceError
        When the extra is not installed, a certificate cannot be used, or the address be had.

    """
    grpc = settings.grpc
    if grpc is None:
        return None
    try:
        from sidelight.logger.grpc import GrpcLimits, serve_grpc  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        if error.name != "grpc":
            raise
        raise ServiceError(
            "proxy.grpc: gRPC needs one more package", hint="pip install 'sidelight[grpc]'"
        ) from error
    limits = GrpcLimits(
        capture_limit=settings.body_limit,
        max_captured_bytes=settings.memory,
        trusts_request_ids=settings.request_ids == "trust",
    )
    options: tuple[tuple[str, str], ...] = ()
    if grpc.tls is not None and grpc.tls.server_name:
        options = (("grpc.ssl_target_name_override", grpc.tls.server_name),)
    try:
        return await serve_grpc(
            grpc.listen,
            grpc.upstream,
            tap,
            limits=limits,
            credentials=_credentials(grpc.tls),
            options=options,
        )
    except OSError as error:
        raise ServiceError(
            f"--grpc-listen: cannot listen on {grpc.listen}; choose an address of this machine "
            "that is free"
        ) from error


def _credentials(tls: TlsSettings | None) -> Any:
    if tls is None:
        return None
    if not tls.verify:
        raise ConfigurationError(
            "proxy.grpc.tls.verify: expected true, got false: gRPC always checks certificates; "
            "give the authority as ca"
        )
    import grpc  # noqa: PLC0415 - an extra

    certificate = _content("certificate", tls.certificate)
    # A file with both, as TLS for HTTP takes it too.
    key = _content("key", tls.key) or certificate
    return grpc.ssl_channel_credentials(
        root_certificates=_content("ca", tls.ca), private_key=key, certificate_chain=certificate
    )


def _content(name: str, path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"proxy.grpc.tls.{name}: expected a PEM file ({error.strerror or 'unreadable'})"
        ) from error
