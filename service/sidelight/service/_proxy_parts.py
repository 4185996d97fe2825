"""The parts of the proxy that a reload may change, from the settings."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sidelight.logger import (
    Capture,
    KeptHeader,
    Limits,
    Outlet,
    Redaction,
    Sampling,
    SamplingRule,
    Selection,
)
from sidelight.service._proxy_secrets import read_key
from sidelight.service._proxy_settings import ProxySettings, SamplingSettings
from sidelight.service._proxy_settings_redaction import RedactionSettings
from sidelight.service._proxy_sinks import build_outlets
from sidelight.service._proxy_tls import tls_context
from sidelight.service.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyParts:
    """What the settings say, made.

    Parameters
    ----------
    settings : ProxySettings
        What they were made from.
    limits : Limits
        Of the connections.
    capture : Capture
        How exchanges become events.
    selection : Selection
        What is captured.
    sampling : Sampling or None
        Which share of it; None for all.
    outlets : tuple of Outlet
        Where events go.
    upstream_tls : ssl.SSLContext or None
        For an upstream with ``https``.

    """

    settings: ProxySettings
    limits: Limits
    capture: Capture
    selection: Selection
    sampling: Sampling | None
    outlets: tuple[Outlet, ...]
    upstream_tls: ssl.SSLContext | None


def build_parts(
    settings: ProxySettings, known: Mapping[str, Outlet] | None = None, *, attempt: int = 0
) -> ProxyParts:
    """Make the parts; nothing is opened yet but what a sink needs from its beginning.

    Parameters
    ----------
    settings : ProxySettings
        Checked.
    known : mapping of str to Outlet, optional
        In use, by name; what did not change is taken from there.
    attempt : int, default 0
        Another number than the last time makes all outlets anew.

    Raises
    ------
    ConfigurationError
        When a secret, a certificate or a pattern cannot be used.

    """
    selection = Selection(paths=settings.only.paths)
    selection = replace(selection, skip_paths=(*selection.skip_paths, *settings.skip.paths))
    return ProxyParts(
        settings=settings,
        limits=Limits(
            capture_limit=settings.body_limit,
            max_captured_bytes=settings.memory,
            answer_s=settings.answer_within,
            gives_request_id=settings.request_id,
            trusts_request_ids=settings.request_ids == "trust",
        ),
        capture=_capture(settings),
        selection=selection,
        sampling=_sampling(settings.sampling),
        upstream_tls=_upstream_tls(settings),
        # Last: when anything above is wrong, no connection was opened in vain.
        outlets=build_outlets(settings, known or {}, attempt=attempt),
    )


def stranded(settings: ProxySettings) -> list[Path]:
    """Return folders with events of sinks that are not configured any more."""
    mine = {settings.spool_of(sink) for sink in settings.all_sinks}
    files = [*settings.spool.glob("*.spool1"), *settings.spool.glob("*/*.spool1")]
    return sorted({path.parent for path in files} - mine)


def _capture(settings: ProxySettings) -> Capture:
    redaction = _redaction(settings.redaction)
    with _named("proxy.headers"):
        return Capture(
            deployment=settings.deployment,
            headers=settings.headers,
            response_headers=settings.response_headers,
            redaction=redaction,
            trusts_request_ids=settings.request_ids == "trust",
        )


def _redaction(settings: RedactionSettings) -> Redaction | None:
    key = b""
    if settings.key_file is not None:
        key = read_key("proxy.redaction.key_file", str(settings.key_file))
    elif settings.key_env is not None:
        key = read_key("proxy.redaction.key_env", f"env:{settings.key_env}")
    if not settings.rules and not key:
        return None
    with _named("proxy.redaction"):
        return Redaction(
            [rule.rule() for rule in settings.rules], key=key, spelling=settings.spelling
        )


def _sampling(settings: SamplingSettings) -> Sampling | None:
    if settings.rate == 1 and not settings.rules:
        return None  # everything is kept, and nothing is asked
    with _named("proxy.sampling"):
        rules = tuple(
            SamplingRule(
                rate=rule.rate, deployment=rule.deployment, path=rule.path, statuses=rule.status
            )
            for rule in settings.rules
        )
        name, _, value = (settings.keep.header or "").partition(":")
        slower_than = settings.keep.slower_than
        return Sampling(
            rate=settings.rate,
            rules=rules,
            key_header=settings.key.partition(":")[2],
            keep_errors=settings.keep.errors,
            keep_slower_than_ms=None if slower_than is None else slower_than * 1000,
            keep_headers=(KeptHeader(name=name, value=value.strip()),) if name else (),
        )


def _upstream_tls(settings: ProxySettings) -> ssl.SSLContext | None:
    if not (settings.upstream or "").startswith("https:"):
        return None
    return tls_context("proxy.tls", settings.tls)


@contextmanager
def _named(key: str) -> Iterator[None]:
    """Give an error of a part the path of the key that it comes from."""
    try:
        yield
    except ValueError as error:
        raise ConfigurationError(f"{key}: {error}") from error
