"""What ``serve`` checks before it starts its processes."""

import ipaddress
import logging

from sidelight.service._settings import Settings
from sidelight.service._supervisor import serve
from sidelight.service.errors import ConfigurationError

log = logging.getLogger(__name__)


def run_serve(settings: Settings) -> int:
    """Run the service in the foreground; return its exit code.

    Raises
    ------
    ConfigurationError
        If the address is not loopback: without tokens anybody there could read every payload.

    """
    host = settings.listen.host
    if not _is_loopback(host):
        raise ConfigurationError(
            f"listen.host: expected a loopback address, got {host}: there are no tokens yet",
            hint="listen on 127.0.0.1 behind a proxy that authenticates",
        )
    if any(deployment.retention is not None for deployment in settings.deployments):
        log.warning("retention is kept but not applied yet: nothing is deleted")
    return serve(settings)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
