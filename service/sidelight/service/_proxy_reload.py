"""SIGHUP: the file is read again, and what it says now goes on without losing anything."""

import asyncio
import logging
from typing import Final, Protocol

from sidelight.service._proxy_configuration import ProxyConfiguration
from sidelight.service._proxy_metrics import Outcome, ProxyState
from sidelight.service._proxy_parts import ProxyParts, build_parts
from sidelight.service._proxy_settings import ProxySettings
from sidelight.service.errors import ServiceError

log = logging.getLogger(__name__)

# Reading takes milliseconds; a storm of signals must not take them from the traffic.
_PAUSE_S: Final = 0.2


class Reloadable(Protocol):
    """What runs and takes other parts."""

    @property
    def parts(self) -> ProxyParts:
        """What is in use."""
        ...

    async def apply(self, parts: ProxyParts) -> None:
        """Use these from now on; raises ``ServiceError`` when some of it could not be had."""
        ...


class Reloading:
    """Reload when asked, one at a time; what is asked meanwhile is done once, afterwards.

    Parameters
    ----------
    configuration : ProxyConfiguration
        Read at each reload.
    proxy : Reloadable
        What runs.
    state : ProxyState
        Where outcomes are counted.
    asked : asyncio.Event
        Set by whoever wants a reload.

    """

    def __init__(
        self,
        configuration: ProxyConfiguration,
        proxy: Reloadable,
        state: ProxyState,
        *,
        asked: asyncio.Event,
    ) -> None:
        self._configuration = configuration
        self._proxy = proxy
        self._state = state
        self._asked = asked
        # Grows when something could not be had: the next reload tries it again.
        self._attempt = 0

    async def run(self) -> None:
        """Reload whenever it is asked, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            outcome = await self.reload()
            self._state.reloads[outcome] += 1
            self._state.is_valid = outcome == "applied"
            log.info("configuration read again", extra={"outcome": outcome})
            await asyncio.sleep(_PAUSE_S)

    async def reload(self) -> Outcome:
        """Read the configuration and put it to work; a wrong one changes nothing."""
        before = self._proxy.parts
        known = {outlet.name: outlet for outlet in before.outlets}
        try:
            # In a thread: files may be slow, and the loop has requests to answer.
            settings = await asyncio.to_thread(self._configuration.read)
            settings, kept = _without_restart(settings, before.settings)
            parts = await asyncio.to_thread(build_parts, settings, known, attempt=self._attempt)
        except ServiceError as error:
            log.error(  # noqa: TRY400 - the message says it all
                "the configuration is wrong; the old one goes on", extra={"problem": str(error)}
            )
            return "refused"
        except Exception:
            log.exception("the configuration could not be read; the old one goes on")
            return "refused"
        for key in kept:
            log.error("a key needs a restart; its old value goes on", extra={"key": key})
        try:
            await self._proxy.apply(parts)
        except ServiceError as error:
            log.error(  # noqa: TRY400 - the message says it all
                "a part of the configuration could not be had", extra={"problem": str(error)}
            )
            self._attempt += 1
            return "partly"
        return "partly" if kept else "applied"


def _without_restart(
    settings: ProxySettings, before: ProxySettings
) -> tuple[ProxySettings, list[str]]:
    """Return settings that can be put to work now, and the keys that keep their old value."""
    kept = [
        name
        for name in ("listen", "admin", "spool")
        if getattr(settings, name) != getattr(before, name)
    ]
    if settings.grpc != before.grpc:
        kept.append("grpc")
    if (settings.upstream is None) != (before.upstream is None):
        kept += ["upstream", "tls"]
    if (settings.sink is None) != (before.sink is None) and settings.spool == before.spool:
        # The spool of the only sink is the folder itself, that of others a folder in it.
        log.warning("events that the former sinks left wait until those are configured again")
    old = {name: getattr(before, name) for name in kept}
    return settings.model_copy(update=old), [f"proxy.{name}" for name in kept if name != "tls"]
