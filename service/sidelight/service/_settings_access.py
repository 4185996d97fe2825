"""Who reaches the service, what they may do and send, and what proves afterwards what was kept."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from sidelight.service._quantities import Duration, Size
from sidelight.service._settings_section import Section


class ListenTlsSettings(Section):
    """The certificate of ``serve``."""

    certificate: Path
    """PEM file with the certificate and what it is signed with."""

    key: Path
    """PEM file with its private key, without a passphrase."""

    clients: Path | None = None
    """PEM file with authorities; callers must then have a certificate that one of them signed."""


class ListenSettings(Section):
    """Where ``serve`` answers."""

    host: str = "127.0.0.1"
    """Address; any other than loopback requires tokens."""

    port: int = Field(default=8090, ge=0, le=65535)
    """TCP port; 0 takes a free one."""

    tls: ListenTlsSettings | None = None
    """HTTPS instead of HTTP."""


class AuthSettings(Section):
    """Who may do what; tokens are made with ``sidelight token create``."""

    required: bool = False
    """Whether tokens are required on a loopback address too; on any other they always are."""

    ingest: Literal["token", "none"] = "token"
    """Whether events are taken from everybody: the loggers of most platforms send no token."""

    metrics: Literal["token", "none"] = "token"
    """Whether everybody may read the metrics."""


class AuditSettings(Section):
    """What makes the archive worth an auditor's trust."""

    signing_key: Path | None = None
    """PEM file with the Ed25519 key that signs checkpoints; one is made in the data folder else."""

    trusted_keys: tuple[str, ...] = ()
    """Public keys of former signers, in hexadecimal, after the key was changed."""

    raw_retention: Duration | None = Field(default=None, gt=0)
    """How long segments of the archive are kept at least; for ever when absent. They hold several
    deployments, and one goes when the retention of each of them is over as well."""


class QuotaSettings(Section):
    """How much one namespace may send to the door; more is answered with 429."""

    events_per_second: float | None = Field(default=None, gt=0)
    """On average; as many may come at once as in ten seconds."""

    bytes_per_second: Size | None = Field(default=None, gt=0)
    """Of payloads and attributes together, counted as they come."""
