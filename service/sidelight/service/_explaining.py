"""Explanations as the API asks for them: by their deadline, and kept with what they cost."""

import asyncio
import logging
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from threading import Lock
from typing import Any, Literal
from uuid import uuid4

from sidelight.adapters import (
    Endpoint,
    OutputChoice,
    QueryStore,
    V1Model,
    V2Model,
    http_client,
    v1_url,
    v2_url,
)
from sidelight.explainers import (
    Broker,
    DeadlineExceeded,
    Explained,
    ExplainerError,
    Limits,
    Predict,
    Shapley,
    Target,
)
from sidelight.logger import Document, Documents
from sidelight.payloads import Explanation
from sidelight.service._explain_request import ExplainRequest
from sidelight.service._explanation_tasks import Task, Tasks
from sidelight.service._metrics import Labels, observe, split_name
from sidelight.service._problems import problem, problem_of
from sidelight.service._settings import Settings
from sidelight.service.errors import NotReady, ServiceError

log = logging.getLogger(__name__)

COLLECTION = "explanations"
_METHOD = "shapley"
_JOBS = 4
_WAITING = 64
# The deadline is kept inside; this is for what is not: another deadline in the queue before.
_GRACE_S = 0.5
_INTERRUPTED = problem(
    503,
    "the explanation was not finished",
    "the service ended while it was computed",
    hint="ask for it again",
)
_MODELS: dict[str, type[V1Model] | type[V2Model]] = {"v1": V1Model, "v2": V2Model}


class Explaining:
    """Explains, through one broker for all live models, and keeps what it found.

    Safe from several threads.
    """

    def __init__(self, settings: Settings, documents: Documents, inferences: QueryStore) -> None:
        self._settings = settings
        self._documents = documents
        self._tasks = Tasks(settings, documents, inferences)
        caps = settings.explanations
        self._broker = Broker(
            Limits(
                calls_in_flight=caps.calls_in_flight,
                rows_per_second=caps.rows_per_second,
                bytes_per_call=caps.call_bytes,
            )
        )
        self._client = http_client()
        self._jobs = ThreadPoolExecutor(_JOBS, "sidelight-explain")
        # Of their own: those who wait for a slow model must not keep other routes waiting.
        self._waited = ThreadPoolExecutor(_WAITING, "sidelight-explain-now")
        self._lock = Lock()
        self._counts: dict[tuple[str, Labels], float] = defaultdict(float)
        self._under_way: set[str] = set()
        self._refusals: Counter[str] = Counter()

    async def explain_in_time(self, request: ExplainRequest) -> Explanation:
        """Explain by the request's deadline, which counts from now, however many ask.

        Raises
        ------
        DeadlineExceeded
            Also when no thread became free in time.
        ServiceError, ExplainerError
            As ``explain``.

        """
        deadline_s = self._deadline_s(request)
        ends_at = time.monotonic() + deadline_s
        answer = asyncio.wrap_future(self._waited.submit(self.explain, request, ends_at))
        try:
            return await asyncio.wait_for(answer, deadline_s + _GRACE_S)
        except DeadlineExceeded:
            raise
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"no answer within {deadline_s:.1f} s: too many explanations at once, or one too "
                "large; allow more time or fewer rows"
            ) from error

    def explain(self, request: ExplainRequest, ends_at: float | None = None) -> Explanation:
        """Explain now, until a point of the monotonic clock; the request's deadline otherwise.

        Raises
        ------
        NotFound, NotReady, BadRequest
            If something named is not there, or must come first.
        ExplainerError
            If there is no valid estimate.

        """
        if ends_at is None:
            ends_at = time.monotonic() + self._deadline_s(request)
        return self._run(self._tasks.prepare(request, _explanation_id()), ends_at)

    def begin(self, request: ExplainRequest) -> Explanation:
        """Explain in the background; return what ``find`` will complete."""
        task = self._tasks.prepare(request, _explanation_id())
        running = self._shown(task, state="running")
        self._under_way.add(task.id)
        self._put(running.to_json(), task)
        self._jobs.submit(self._run_job, task)
        return running

    def find(self, explanation_id: str) -> dict[str, Any] | None:
        """Return an explanation as the API shows it."""
        # Asked first: a job that ends has put its answer before it is under way no more.
        is_under_way = explanation_id in self._under_way
        value = self._documents.get(COLLECTION, explanation_id)
        if value is None or value["state"] != "running" or is_under_way:
            return value
        return {**value, "state": "failed", "problem": _INTERRUPTED}

    def counters(self) -> dict[tuple[str, Labels], float]:
        """Return the counters since the start."""
        with self._lock:
            return dict(self._counts)

    def close(self) -> None:
        """Start nothing more."""
        for pool in (self._jobs, self._waited):
            pool.shutdown(wait=False, cancel_futures=True)
        self._broker.close()
        self._client.close()

    def _run_job(self, task: Task) -> None:
        try:
            self._run(task, time.monotonic() + self._deadline_s(task.request))
        except (ServiceError, ExplainerError) as error:
            failed = self._shown(task, state="failed").to_json()
            self._put({**failed, "problem": problem_of(error)}, task)
        except Exception:
            log.exception("explanation failed", extra={"id": task.id})
            self._put(self._shown(task, state="failed").to_json(), task)
        finally:
            self._under_way.discard(task.id)

    def _run(self, task: Task, ends_at: float) -> Explanation:
        # Answers are remembered under the address too, and not beyond a refusal: what another
        # model or version said is not what is asked for now.
        where = f"{task.deployment} at {task.url} {self._refusals[task.url] or ''}"
        target = Target(deployment=where, version=task.version, output=task.request.output)
        try:
            left_s = ends_at - time.monotonic()
            if left_s <= 0:
                raise DeadlineExceeded("the deadline passed before anything was asked")
            explained = Shapley(budget_rows=task.request.budget_rows).explain(
                task.instances,
                task.background,
                broker=self._broker,
                model=self._model(task),
                target=target,
                deadline_s=left_s,
            )
        except ExplainerError:
            self._count(task.deployment, "failed", None)
            raise
        try:
            _refuse_other_version(task, explained)
        except NotReady:
            self._refusals[task.url] += 1
            self._count(task.deployment, "failed", None)
            raise
        self._count(task.deployment, "done", explained)
        done = replace(
            self._shown(task, state="done"),
            version=explained.versions[0] if explained.versions else task.version,
            rows=explained.rows,
            cost=explained.cost,
            quality=explained.quality,
        )
        self._put(done.to_json(), task)
        return done

    def _model(self, task: Task) -> Predict:
        route = v2_url if task.model.protocol == "v2" else v1_url
        endpoint = Endpoint(
            client=self._client, url=route(task.url, task.model.name), explanation_id=task.id
        )
        return _MODELS[task.model.protocol](
            endpoint,
            task.layout,
            task.background.names,
            choice=OutputChoice(output=task.request.output),
            version=task.version,
        )

    def _shown(self, task: Task, *, state: Literal["running", "done", "failed"]) -> Explanation:
        return Explanation(
            id=task.id,
            state=state,
            deployment=task.deployment,
            version=task.version,
            inference_id=task.request.inference_id,
            method=_METHOD,
            output=task.request.output,
        )

    def _put(self, value: dict[str, Any], task: Task) -> None:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        document = Document(
            collection=COLLECTION,
            key=task.id,
            deployment=task.deployment,
            order=now,
            value={**value, "time": now},
        )
        self._documents.put([document])

    def _count(self, deployment: str, outcome: str, explained: Explained | None) -> None:
        labels: Labels = (*split_name(deployment), ("explainer", _METHOD))
        with self._lock:
            self._counts["explanations_total", (*labels, ("outcome", outcome))] += 1
            if explained is None:
                return
            cost = explained.cost
            observe(self._counts, "explanation_seconds", labels, [cost.seconds])
            self._counts["explainer_model_calls_total", labels] += cost.model_calls
            self._counts["explainer_model_rows_total", labels] += cost.model_rows
            self._counts["explainer_cache_hits_total", labels] += cost.cache_hits

    def _deadline_s(self, request: ExplainRequest) -> float:
        if request.deadline_ms is None:
            return self._settings.explanations.deadline
        return request.deadline_ms / 1000


def _explanation_id() -> str:
    return uuid4().hex


def _refuse_other_version(task: Task, explained: Explained) -> None:
    """Say that the version that served an inference is gone, rather than explain another one."""
    others = [version for version in explained.versions if version != task.version]
    if task.version is None or not others:
        return
    raise NotReady(
        f"version {task.version} served this inference, but the model answers as {others[0]}",
        expected=task.version,
        got=others[0],
        hint="set model.versions to the address of that version",
    )
