"""Whether the reference files of the configuration are there, before anything listens."""

import logging
from pathlib import Path

from sidelight.adapters import EmbeddedDocuments
from sidelight.logger.errors import JournalError
from sidelight.service._deployments import get_settings
from sidelight.service._reference_files import check_given_reference
from sidelight.service._settings import Settings
from sidelight.service._settings_deployment import DeploymentSettings
from sidelight.service.errors import ConfigurationError

log = logging.getLogger(__name__)


def check_references(settings: Settings) -> None:
    """Refuse reference files that cannot be used, but those whose rows were taken over already.

    A reference is a copy in the data folder: a file that has gone since stops no service that
    needs it no more.

    Raises
    ------
    ConfigurationError
        With one line for each file: the path of its key, what was expected, what was got.

    """
    wrong: list[ConfigurationError] = []
    for number, deployment in enumerate(settings.deployments):
        if deployment.reference.file is None:
            continue
        try:
            check_given_reference(deployment.reference.file, deployment.schema)
        except ConfigurationError as error:
            if _is_taken_over(settings.data, deployment):
                log.warning("reference file: its rows are still used", extra={"why": str(error)})
                continue
            detail = f"deployments[{number}].{error.detail}"
            wrong.append(ConfigurationError(detail, hint=error.hint))
    if wrong:
        raise ConfigurationError("\n".join(error.detail for error in wrong), hint=wrong[0].hint)


def _is_taken_over(data: Path, deployment: DeploymentSettings) -> bool:
    """Whether detection has the reference of exactly this configuration."""
    if not (data / "state.db").exists():
        return False
    try:
        documents = EmbeddedDocuments(data)
        try:
            known = get_settings(documents, deployment.name)
            reference = documents.get("references", deployment.name) or {}
        finally:
            documents.close()
    except (JournalError, ConfigurationError):
        return False  # the folder is no better than the file; whoever opens it says so
    same = all(
        getattr(known, key) == getattr(deployment, key)
        for key in ("schema_", "reference", "detection")
    )
    return same and bool(reference.get("complete"))
