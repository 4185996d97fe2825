"""What is known of each deployment, put together from what the consumers and people wrote.

Collections: ``deployments`` (inventory, by the decoding stage), ``references`` (by the detection
stage), ``deployment_settings`` (by people, through the file or the API).
"""

from collections.abc import Iterable
from typing import Any
from uuid import uuid4

from sidelight.logger import Document, Documents
from sidelight.service._settings_deployment import DeploymentSettings, read_deployment

SETTINGS = "deployment_settings"


def deployment_names(documents: Documents) -> list[str]:
    """Return the names that traffic or configuration has brought up, sorted."""
    names: set[str] = set()
    for collection in ("deployments", SETTINGS):
        after = None
        while page := documents.find(collection, descending=False, after=after, limit=1000):
            names.update(key for _, key, value in page if not value.get("deleted"))
            after = page[-1][:2]
    return sorted(names)


def deployment_json(documents: Documents, name: str) -> dict[str, Any]:
    """Return the API's form of one deployment."""
    inventory = documents.get("deployments", name) or {}
    reference = documents.get("references", name) or {}
    settings = get_settings(documents, name)
    registered = settings.schema
    schema = inventory.get("schema") if registered is None else registered.to_json()
    return {
        "name": name,
        "versions": inventory.get("versions", []),
        "schema": schema or {"columns": []},
        "reference": {
            "rows": reference.get("rows", 0),
            "digest": reference.get("digest"),
            "complete": reference.get("complete", False),
        },
        "rows_seen": inventory.get("rows_seen", 0),
        "first_seen": inventory.get("first_seen"),
        "last_seen": inventory.get("last_seen"),
        "model": None if settings.model is None else settings.model.model_dump(),
        "detection": settings.detection.model_dump(),
        "retention": _retention(settings),
    }


def get_settings(documents: Documents, name: str) -> DeploymentSettings:
    """Return how a deployment is configured; the defaults when nobody did."""
    value = documents.get(SETTINGS, name)
    if value is None or value.get("deleted"):
        return DeploymentSettings(name=name)
    return read_deployment(
        name, {key: item for key, item in value.items() if key not in {"name", "deletion"}}
    )


def put_settings(
    documents: Documents, settings: DeploymentSettings | None, *, name: str = ""
) -> None:
    """Write how a deployment is configured; None forgets it and what was learnt about it."""
    if settings is not None:
        known = documents.get(SETTINGS, settings.name) or {}
        documents.put([_document(settings, str(known.get("deletion", "")))])
        return
    # Detection begins again where the mark of the deletion is another one than before.
    documents.put(
        [
            Document(
                collection=SETTINGS,
                key=name,
                deployment=name,
                value={"deleted": True, "deletion": uuid4().hex},
            ),
            Document(collection="deployments", key=name, deployment=name, value=None),
        ]
    )


def put_all_settings(documents: Documents, deployments: Iterable[DeploymentSettings]) -> None:
    """Write the deployments of the configuration file; the others stay as they are."""
    for settings in deployments:
        put_settings(documents, settings)


def _retention(settings: DeploymentSettings) -> str | None:
    """Return it as it may be written in the file: with its unit."""
    return None if settings.retention is None else f"{settings.retention:.15g}s"


def _document(settings: DeploymentSettings, deletion: str) -> Document:
    value = settings.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if settings.retention is not None:
        value["retention"] = _retention(settings)
    if deletion:
        value["deletion"] = deletion
    return Document(collection=SETTINGS, key=settings.name, deployment=settings.name, value=value)
