"""``serve``: the supervisor, and what is checked before anything listens."""

import asyncio
import logging
from pathlib import Path
from typing import Any

from sidelight.service._supervisor import Supervisor, announce

log = logging.getLogger(__name__)


def run_serve(config: Path | None, options: dict[str, Any]) -> int:
    """Run the service in the foreground; return its exit code.

    Raises
    ------
    ConfigurationError
        If a key is wrong.

    """
    return asyncio.run(Supervisor(lambda: _load(config, options), announce).run())


def _load(config: Path | None, options: dict[str, Any]) -> dict[str, Any]:
    # Imported here, while the processes already import theirs.
    from sidelight.service._access import tokens_required  # noqa: PLC0415
    from sidelight.service._settings import load_settings  # noqa: PLC0415
    from sidelight.service._tokens import Tokens  # noqa: PLC0415

    settings = load_settings(config, options)
    if any(deployment.reference.file for deployment in settings.deployments):
        # It takes Arrow and the database, which are nothing for a start that needs neither.
        from sidelight.service._references_configured import check_references  # noqa: PLC0415

        check_references(settings)
    if tokens_required(settings) and not Tokens(settings.data).list():
        log.warning(
            "nobody can use the service yet: it requires tokens and there is none; "
            "make one with: sidelight token create --role admin"
        )
    return settings.model_dump(mode="json", by_alias=True)
