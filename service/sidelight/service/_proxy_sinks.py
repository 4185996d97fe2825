"""Outlets of the emitter from the settings of their sinks."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sidelight.logger import EmitterLimits, HttpSink, Outlet, Sink, SpoolFolder
from sidelight.service._proxy_secrets import is_variable, read_secret
from sidelight.service._proxy_settings import ProxySettings
from sidelight.service._proxy_settings_sinks import (
    FileSinkSettings,
    HttpSinkSettings,
    KafkaSinkSettings,
    SinkSettings,
    TlsSettings,
)
from sidelight.service._proxy_tls import tls_context
from sidelight.service._settings_s3 import S3Settings
from sidelight.service.errors import ConfigurationError

Secrets = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Making:
    """What an outlet is made from: equal, and it may go on. It shows no secret."""

    sink: SinkSettings
    spool: SpoolFolder | None
    fingerprint: str
    attempt: int


def build_outlets(
    settings: ProxySettings, known: Mapping[str, Outlet], *, attempt: int = 0
) -> tuple[Outlet, ...]:
    """Make an outlet for each sink, or take a known one that was made from the same.

    Parameters
    ----------
    settings : ProxySettings
        With one sink at least.
    known : mapping of str to Outlet
        In use, by name.
    attempt : int, default 0
        Another number than the last time makes all of them anew.

    Raises
    ------
    ConfigurationError
        When a secret or a file of TLS cannot be had, or an extra is not installed.

    """
    # Secrets first: when one is missing, no producer was made in vain.
    numbers = range(len(settings.all_sinks))
    makings = [_making(settings, number, attempt) for number in numbers]
    return tuple(_outlet(known, *making) for making in makings)


def _making(settings: ProxySettings, number: int, attempt: int) -> tuple[str, _Making, Secrets]:
    sink = settings.all_sinks[number]
    key = "proxy.sink" if settings.sink is not None else f"proxy.sinks[{number}]"
    secrets: dict[str, str] = {}
    files: list[Path] = []
    match sink.http or sink.kafka or sink.files:
        case HttpSinkSettings(headers_from=places):
            secrets = _read(f"{key}.http.headers_from", places)
        case KafkaSinkSettings(config_from=places):
            secrets = _read(f"{key}.kafka.config_from", places)
        case FileSinkSettings(s3=S3Settings() as s3):
            secrets = _read(f"{key}.files.s3", _places(s3))
            files = [] if s3.ca is None else [s3.ca]
        case _:
            pass
    spool = None
    if sink.overflow == "spool":
        spool = SpoolFolder(
            folder=settings.spool_of(sink), max_bytes=sink.spool_max or settings.spool_max
        )
    # The sink for HTTP looks itself whether a file was changed.
    fingerprint = "" if sink.http is not None else _fingerprint(secrets, files)
    making = _Making(sink=sink, spool=spool, fingerprint=fingerprint, attempt=attempt)
    return key, making, secrets


def _places(s3: S3Settings) -> dict[str, str]:
    names = ("access_key_from", "secret_key_from", "session_token_from")
    return {name: place for name in names if (place := getattr(s3, name)) is not None}


def _read(key: str, places: Mapping[str, str]) -> dict[str, str]:
    return {name: read_secret(f"{key}.{name}", place) for name, place in places.items()}


def _fingerprint(secrets: Secrets, files: list[Path]) -> str:
    """Tell whether a token or a certificate was changed where it is."""
    digest = hashlib.sha256()
    for name, secret in sorted(secrets.items()):
        digest.update(f"{name}\0{secret}\0".encode())
    for path in files:
        # One that cannot be read is named when the context is made.
        digest.update(hashlib.sha256(path.read_bytes() if path.is_file() else b"").digest())
    return digest.hexdigest()


def _outlet(known: Mapping[str, Outlet], key: str, making: _Making, secrets: Secrets) -> Outlet:
    before = known.get(making.sink.name)
    if before is not None and before.settings == making:
        return before
    try:
        sink, limits = _sink(key, making.sink, secrets)
    except ConfigurationError:
        raise
    except (ImportError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{key}: {error}") from error
    batch = making.sink.batch
    return Outlet(
        name=making.sink.name,
        sink=sink,
        overflow=making.sink.overflow,
        spool=making.spool,
        limits=replace(
            limits,
            memory_bytes=making.sink.memory,
            batch_events=batch.events or limits.batch_events,
            batch_bytes=batch.bytes or limits.batch_bytes,
            linger_s=batch.linger or limits.linger_s,
        ),
        settings=making,
    )


def _sink(key: str, sink: SinkSettings, secrets: Secrets) -> tuple[Sink, EmitterLimits]:
    match sink.http or sink.kafka or sink.files:
        case HttpSinkSettings() as http:
            return _http_sink(f"{key}.http", http, secrets), EmitterLimits()
        case KafkaSinkSettings() as kafka:
            return _kafka_sink(kafka, secrets)
        case FileSinkSettings() as files:
            return _file_sink(files, secrets)
        case None:
            raise ConfigurationError(f"{key}: expected one of http, kafka, files, got none")


def _http_sink(key: str, http: HttpSinkSettings, secrets: Secrets) -> HttpSink:
    is_tls = http.url.startswith("https:")
    if http.tls is not None and not is_tls:
        raise ConfigurationError(f"{key}.tls: expected https in {key}.url, got {http.url!r}")
    in_files = {
        name: Path(place) for name, place in http.headers_from.items() if not is_variable(place)
    }
    in_environment = {name: secrets[name] for name in http.headers_from if name not in in_files}
    tls = http.tls or TlsSettings()
    if is_tls:
        # Only to name the key of a file that cannot be used; unless it is not to check anything.
        context = tls_context(f"{key}.tls", http.tls)
    return HttpSink(
        http.url,
        mode=http.mode,
        timeout_s=http.timeout,
        headers={**http.headers, **in_environment},
        header_files=in_files,
        tls=context if is_tls and not tls.verify else None,
        ca_file=tls.ca,
        certificate_file=tls.certificate,
        key_file=tls.key,
        server_name=tls.server_name,
    )


def _kafka_sink(kafka: KafkaSinkSettings, secrets: Secrets) -> tuple[Sink, EmitterLimits]:
    from sidelight.adapters import KAFKA_LIMITS, KafkaSink  # noqa: PLC0415 - only who has one waits

    sink = KafkaSink(
        ",".join(kafka.brokers),
        topic=kafka.topic,
        mode=kafka.mode,
        key=kafka.key,
        timeout_s=kafka.timeout,
        settings={**kafka.config, **secrets},
    )
    return sink, KAFKA_LIMITS


def _file_sink(files: FileSinkSettings, secrets: Secrets) -> tuple[Sink, EmitterLimits]:
    from sidelight import adapters  # noqa: PLC0415 - Arrow is large

    s3 = files.s3 or S3Settings()
    sink = adapters.FileSink(
        files.url,
        file_format=files.format,
        timeout_s=files.timeout,
        s3=adapters.S3Settings(
            endpoint=s3.endpoint or "",
            region=s3.region,
            role_arn=s3.role_arn,
            ca_file="" if s3.ca is None else str(s3.ca),
            access_key=secrets.get("access_key_from", ""),
            secret_key=secrets.get("secret_key_from", ""),
            session_token=secrets.get("session_token_from", ""),
        ),
    )
    return sink, adapters.FILE_LIMITS
