"""What an explanation is made of: the rows, the model, the layout and the background."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidelight.adapters import QueryStore
from sidelight.explainers import Background
from sidelight.logger import Documents
from sidelight.payloads import Inference
from sidelight.service._columns import background_columns
from sidelight.service._deployments import get_settings
from sidelight.service._explain_request import MAX_INSTANCES, ExplainRequest
from sidelight.service._layouts import columns_of, fitting_layout, layouts_of
from sidelight.service._reference_files import read_reference_file
from sidelight.service._settings import Settings
from sidelight.service._settings_deployment import ModelSettings
from sidelight.service.errors import BadRequest, NotFound, NotReady


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A request with everything that it needs, looked up."""

    id: str
    request: ExplainRequest
    deployment: str
    version: str | None
    model: ModelSettings
    url: str
    layout: dict[str, Any]
    background: Background
    instances: list[tuple[Any, ...]]


class Tasks:
    """Looks up what explanations need; keeps the backgrounds.

    Parameters
    ----------
    settings : Settings
    documents : Documents
        Deployments and references.
    inferences : QueryStore
        What was logged.

    """

    def __init__(self, settings: Settings, documents: Documents, inferences: QueryStore) -> None:
        self._settings = settings
        self._documents = documents
        self._inferences = inferences
        self._references: dict[str, list[str]] = {}
        self._backgrounds: dict[tuple[str, frozenset[str]], Background] = {}

    def prepare(self, request: ExplainRequest, task_id: str) -> Task:
        """Look up what a request needs.

        Raises
        ------
        NotFound, NotReady, BadRequest
            If something named is not there, or must come first.

        """
        inference = self._inference(request)
        deployment = inference.deployment if inference else request.deployment or ""
        model = get_settings(self._documents, deployment).model
        if model is None:
            raise NotReady(
                f"no model is configured for {deployment}",
                expected="deployments[].model.url",
                hint=f'PUT /v1/deployments/{deployment} {{"model": {{"url": ..., "name": ...}}}}',
            )
        inventory = self._documents.get("deployments", deployment)
        if inventory is None:
            raise NotFound(f"no traffic of {deployment} was seen yet")
        rows = _rows(request, inference)
        layout, background = self._asked_with(deployment, inventory, rows[0])
        version = inference.version if inference else None
        return Task(
            id=task_id,
            request=request,
            deployment=deployment,
            version=version,
            model=model,
            url=model.versions.get(version, model.url) if version else model.url,
            layout=layout,
            background=background,
            instances=[background.instance(row) for row in rows],
        )

    def _inference(self, request: ExplainRequest) -> Inference | None:
        if request.inference_id is None:
            return None
        inference = self._inferences.get(request.inference_id)
        if inference is None:
            raise NotFound(
                f"no inference {request.inference_id}", hint="GET /v1/inferences finds them"
            )
        if request.deployment not in {None, inference.deployment}:
            raise BadRequest(
                "the inference belongs to another deployment",
                expected=request.deployment or "",
                got=inference.deployment,
            )
        return inference

    def _asked_with(
        self, deployment: str, inventory: dict[str, Any], row: Any
    ) -> tuple[dict[str, Any], Background]:
        """Return the layout of the logged requests with the columns of a row, and its background.

        Traffic may have changed its columns since, and the reference may hold columns of requests
        that only strayed in.
        """
        digest = self._reference_digest(deployment)
        if digest not in self._references:
            self._references[digest] = list(self._reference_columns(digest))
        known = self._references[digest]
        asked = row if isinstance(row, dict) else len(row)
        layout = fitting_layout(layouts_of(inventory), asked, known)
        if layout is None:
            raise NotReady(
                f"no request of {deployment} with the columns of its reference was seen yet",
                expected=", ".join(known[:20]),
            )
        names = columns_of(layout)
        missing = [name for name in names if name not in known]
        if missing:
            raise BadRequest(
                "the inference has columns that the reference does not have",
                expected=", ".join(known[:20]),
                got=", ".join(missing[:20]),
                hint="explanations compare with rows of the reference",
            )
        place = digest, frozenset(names)
        if place not in self._backgrounds:
            columns = self._reference_columns(digest)
            self._backgrounds[place] = _sampled(
                {name: values for name, values in columns.items() if name in names},
                digest,
                self._settings.explanations.background_rows,
            )
        return layout, self._backgrounds[place]

    def _reference_columns(self, digest: str) -> Mapping[str, list[Any]]:
        return background_columns(read_reference_file(self._settings.data, digest))

    def _reference_digest(self, deployment: str) -> str:
        reference = self._documents.get("references", deployment) or {}
        digest = reference.get("digest")
        if digest is None:
            rows = reference.get("rows", 0)
            raise NotReady(
                f"the reference of {deployment} is not complete: {rows} rows so far",
                hint="explanations compare with its rows; send more traffic or set reference.file",
            )
        return str(digest)


def _sampled(columns: dict[str, list[Any]], digest: str, n_rows: int) -> Background:
    # Rows of another layout have none of these columns.
    used = [
        index
        for index, row in enumerate(zip(*columns.values(), strict=True))
        if any(value is not None for value in row)
    ]
    if used:
        columns = {name: [values[index] for index in used] for name, values in columns.items()}
    seed = int.from_bytes(hashlib.sha256(digest.encode()).digest()[:8], "big")
    return Background.sample(columns, n_rows=n_rows, seed=seed)


def _rows(request: ExplainRequest, inference: Inference | None) -> list[Any]:
    rows: list[Any] = list(request.instances or [])
    if inference is not None:
        if inference.orphan == "response":
            raise BadRequest("of this inference only the response is known: no row to explain")
        rows = [dict(row.features) for row in inference.rows]
    if request.row is not None:
        if request.row >= len(rows):
            raise BadRequest("row: there is no such row", expected=f"below {len(rows)}")
        rows = [rows[request.row]]
    if len(rows) > MAX_INSTANCES:
        raise BadRequest(
            "too many rows for one explanation",
            expected=f"at most {MAX_INSTANCES}",
            got=str(len(rows)),
            hint="name one with `row`",
        )
    return rows
