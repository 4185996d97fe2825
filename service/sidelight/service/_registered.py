"""How deployments are configured, as the consumer sees it: at most a second late."""

import time
from typing import Any

from sidelight.logger import Documents
from sidelight.payloads import Schema
from sidelight.service._deployments import SETTINGS, get_settings
from sidelight.service._settings_deployment import DeploymentSettings

_FRESH_S = 1.0


class RegisteredSettings:
    """Reads the configuration of a deployment when what it knows is more than a second old."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._known: dict[str, tuple[float, DeploymentSettings]] = {}
        self._read: dict[str, tuple[dict[str, Any] | None, DeploymentSettings]] = {}

    def settings(self, deployment: str) -> DeploymentSettings:
        """Return how a deployment is configured; the defaults when nobody did."""
        now = time.monotonic()
        known = self._known.get(deployment)
        if known is None or now - known[0] > _FRESH_S:
            known = (now, get_settings(self._documents, deployment))
            self._known[deployment] = known
        return known[1]

    def settings_now(self, deployment: str) -> tuple[DeploymentSettings, str]:
        """Return how a deployment is configured this moment, and the mark of its last deletion.

        The same object as long as nobody changes it. The mark is empty when there was none.
        """
        value = self._documents.get(SETTINGS, deployment)
        read = self._read.get(deployment)
        if read is None or read[0] != value:
            # To be read is dearer than to be fetched.
            read = self._read[deployment] = value, get_settings(self._documents, deployment)
        return read[1], str((value or {}).get("deletion", ""))

    def schema(self, deployment: str) -> Schema | None:
        """Return the registered schema of a deployment."""
        return self.settings(deployment).schema
