"""``serve``: the supervisor, and what is checked before anything listens."""

import asyncio
import ipaddress
import logging
from pathlib import Path
from typing import Any

from sidelight.service._supervisor import Supervisor, announce
from sidelight.service.errors import ConfigurationError

log = logging.getLogger(__name__)


def run_serve(config: Path | None, options: dict[str, Any]) -> int:
    """Run the service in the foreground; return its exit code.

    Raises
    ------
    ConfigurationError
        If a key is wrong, or the address is not loopback: without tokens anybody there could
        read every payload.

    """
    return asyncio.run(Supervisor(lambda: _load(config, options), announce).run())


def _load(config: Path | None, options: dict[str, Any]) -> dict[str, Any]:
    # Imported here, while the processes already import theirs.
    from sidelight.service._settings import load_settings  # noqa: PLC0415

    settings = load_settings(config, options)
    host = settings.listen.host
    if not _is_loopback(host):
        raise ConfigurationError(
            f"listen.host: expected a loopback address, got {host}: there are no tokens yet",
            hint="listen on 127.0.0.1 behind a proxy that authenticates",
        )
    if any(deployment.retention is not None for deployment in settings.deployments):
        log.warning("retention is kept but not applied yet: nothing is deleted")
    return settings.model_dump(mode="json", by_alias=True)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
