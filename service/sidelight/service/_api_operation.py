"""Health, metrics and the console."""

import os
import time
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from fastapi.responses import HTMLResponse, JSONResponse

from sidelight.service._console import render_console
from sidelight.service._context import Context, context_of
from sidelight.service._erasure_orders import ErasureOrders
from sidelight.service._gauges import read_gauges
from sidelight.service._metrics import Labels, render
from sidelight.service._run_folder import CONSUMER, RunFolder
from sidelight.service._stage import DETECTION

router = APIRouter(tags=["operation"])
Shared = Annotated[Context, Depends(context_of)]

# A process that writes its mark once a second is stuck or dead after this.
_STALE_S = 10.0


@router.get("/healthz")
def health() -> dict[str, str]:
    """Whether the API answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readiness(context: Shared) -> JSONResponse:
    """Whether the door takes events and the consumer works on them; detection may come later."""
    folder = RunFolder(context.settings.data)
    door = bool(await context.ingest.counters())
    consumer, detection = (_is_alive(folder, role) for role in (CONSUMER, DETECTION))
    # Nobody sends elsewhere because judgements are late: it is shown, and its lag is a metric.
    is_ready = door and consumer
    parts = {"door": door, "consumer": consumer, "detection": detection}
    return JSONResponse(
        {"status": "ok" if is_ready else "not ready", **parts}, 200 if is_ready else 503
    )


def _is_alive(folder: RunFolder, role: str) -> bool:
    age_s = folder.age_s(role, time.time())
    return age_s is not None and age_s < _STALE_S


@router.get("/metrics")
async def metrics(context: Shared) -> Response:
    """Everything in the Prometheus text format."""
    counters: dict[tuple[str, Labels], float] = dict(context.documents.counters())
    counters.update(context.explaining.counters())
    door = await context.ingest.counters()
    for outcome in ("accepted", "refused"):
        for reason, value in door.get(outcome, {}).items():
            labels = (("outcome", outcome), ("reason", reason))
            counters["requests_total", labels] = float(value)
    # What the door's sockets refuse before there is a request: too long, or no HTTP.
    unread = door.get("connections", {}).get("refused")
    if unread is not None:
        counters["requests_total", (("outcome", "refused"), ("reason", "http"))] = float(unread)
    if door.get("erased_again"):
        counters["erased_again_events_total", ()] = float(door["erased_again"])
    gauges = read_gauges(context.documents)
    disk = os.statvfs(context.settings.data)
    gauges["disk_free_bytes", ()] = float(disk.f_bavail * disk.f_frsize)
    gauges["disk_bytes", ()] = float(disk.f_blocks * disk.f_frsize)
    gauges |= _erasure_gauges(ErasureOrders(context.settings.data))
    body = render(counters, gauges)
    return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")


def _erasure_gauges(orders: ErasureOrders) -> dict[tuple[str, Labels], float]:
    progress, oldest_s = orders.progress(), orders.oldest_s()
    failed = 0.0 if progress is None else float(progress.failed_tries)
    gauges: dict[tuple[str, Labels], float] = {("erasure_failed_tries", ()): failed}
    if oldest_s is not None:
        gauges["erasure_since_timestamp_seconds", ()] = oldest_s
    return gauges


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
def console(context: Shared) -> str:
    """One page: deployments, open alarms, last inferences, links."""
    return render_console(context)
