"""``sidelight demo``: the main job, end to end, on the flights of 2013."""

import asyncio
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sidelight.service._demo_client import DEPLOYMENT, DemoClient, Metrics
from sidelight.service._demo_processes import KeptProcess, free_ports
from sidelight.service.demo import (
    MODEL_NAME,
    DemoError,
    DemoNumbers,
    ExplainedFlight,
    FlightRequest,
    FlightStream,
    LabelFeed,
    ModelFacts,
    ModelProcess,
    Outlier,
    Traffic,
    TrafficReport,
    ask_model,
    control_rows,
    flight_to_explain,
    json_line,
    load_flights,
    print_summary,
    reference_rows,
    stream_auc,
    stream_rows,
    tell_alarm,
    tell_explanation,
    tell_shifts,
    write_reference,
    yardstick,
)

_ROWS = 24_000
_QUICK_ROWS = 7_000
# The detectors count the rows of the reference file before those of the stream.
_REFERENCE_ROWS = 2_000
_SETTLE_S = 180.0
_SHOWN_OUTLIERS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    """Ports and folders of one demo."""

    port: int
    proxy_port: int
    admin_port: int
    data: Path

    @property
    def service_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"


def run_demo(*, quick: bool, once: bool, port: int, data: Path) -> int:
    """Run the demo; return its exit code."""
    console = Console(stderr=once)
    _clear(data)
    free, proxy_port, admin_port = free_ports(3)
    setting = _Setting(port=port or free, proxy_port=proxy_port, admin_port=admin_port, data=data)
    started = time.perf_counter()
    try:
        with ExitStack() as stack:
            model = stack.enter_context(ModelProcess())
            service = stack.enter_context(_service(setting))
            # Loaded here while the model is being trained over there.
            flights = load_flights()
            stream = FlightStream(stream_rows(flights, _QUICK_ROWS if quick else _ROWS))
            with console.status("Training the model on January to March ..."):
                facts = model.ready()
            proxy = stack.enter_context(_proxy(setting, facts))
            service.wait_ready()
            proxy.wait_ready()
            demo = _Demo(setting, facts, stream, console)
            numbers = asyncio.run(demo.run(flights, started, once))
            print_summary(console, numbers)
            if once:
                sys.stdout.write(json_line(numbers) + "\n")
                sys.stdout.flush()
            else:
                _stay(console, setting)
    except (DemoError, TimeoutError) as error:
        console.print(f"[red]The demo failed:[/] {error}. Logs are in {data / 'logs'}.")
        return 1
    return 0 if numbers.accounted and not numbers.failures else 1


def _clear(data: Path) -> None:
    # Only what an earlier demo made is removed: a folder of the wrong name must survive a typo.
    if data.exists() and any(data.iterdir()):
        if not (data / "demo").exists():
            raise SystemExit(f"sidelight: {data} is not empty and no demo made it; choose another")
        shutil.rmtree(data)
    (data / "logs").mkdir(parents=True)
    (data / "demo").touch()


def _service(setting: _Setting) -> KeptProcess:
    return KeptProcess(
        "serve",
        "--port",
        str(setting.port),
        "--data",
        str(setting.data / "service"),
        ready_url=f"{setting.service_url}/readyz",
        log=setting.data / "logs" / "serve.log",
    )


def _proxy(setting: _Setting, facts: ModelFacts) -> KeptProcess:
    return KeptProcess(
        "proxy",
        *("--upstream", facts.url, "--sink", f"{setting.service_url}/"),
        *("--listen", f"127.0.0.1:{setting.proxy_port}", "--deployment", DEPLOYMENT),
        *("--admin", f"127.0.0.1:{setting.admin_port}", "--spool", str(setting.data / "spool")),
        ready_url=f"{setting.admin_url}/readyz",
        log=setting.data / "logs" / "proxy.log",
    )


def _stay(console: Console, setting: _Setting) -> None:
    console.print(f"The console stays at {setting.service_url}/ until Ctrl-C.")
    try:
        signal.pause()
    except KeyboardInterrupt:
        console.print("Stopping.")


class _Demo:
    """The main job, once everything runs."""

    def __init__(
        self, setting: _Setting, facts: ModelFacts, stream: FlightStream, console: Console
    ) -> None:
        self._setting = setting
        self._facts = facts
        self._stream = stream
        self._console = console
        self._labels = 0

    async def run(self, flights: Any, started: float, once: bool) -> DemoNumbers:  # noqa: FBT001 - as the option
        reference = reference_rows(flights, _REFERENCE_ROWS)
        client = DemoClient(
            service_url=self._setting.service_url, proxy_url=self._setting.admin_url
        )
        try:
            await self._configure(client, reference)
            report = await self._send(client)
            metrics = await self._settle(client)
            control = control_rows(flights, reference, self._stream.n_rows // 3)
            shifts = tell_shifts(
                await self._verdicts(client),
                self._stream,
                yardstick(control, reference),
                rows_before=_REFERENCE_ROWS,
            )
            numbers = await self._gather(client, report, metrics, once)
            return replace(numbers, shifts=shifts, seconds=time.perf_counter() - started)
        finally:
            await client.close()

    async def _configure(self, client: DemoClient, reference: Any) -> None:
        """Register the model and, as reference, flights of the months that it was trained on."""
        outputs = await ask_model(reference, host="127.0.0.1", port=self._facts.port)
        path = (self._setting.data / "reference.parquet").absolute()
        write_reference(path, reference, outputs)
        await client.send(
            "PUT",
            f"/v1/deployments/{DEPLOYMENT}",
            {
                "model": {"url": self._facts.url, "name": MODEL_NAME, "protocol": "v2"},
                "reference": {"file": str(path)},
            },
        )

    async def _send(self, client: DemoClient) -> TrafficReport:
        feed = LabelFeed(self._stream, deployment=DEPLOYMENT)
        due: asyncio.Queue[list[dict[str, Any]] | None] = asyncio.Queue()
        poster = asyncio.create_task(self._post_labels(client, due))
        with Progress(
            TextColumn("Flights of {task.fields[day]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
        ) as progress:
            bar = progress.add_task("", total=self._stream.n_rows, day="2013")

            def advance(request: FlightRequest) -> None:
                day = self._stream.departs(request.first).date().isoformat()
                progress.update(bar, advance=request.n_rows, day=day)
                for items in feed.due(request.first):
                    due.put_nowait(items)

            traffic = Traffic("127.0.0.1", self._setting.proxy_port)
            report = await traffic.send(self._stream, progress=advance)
        for items in feed.rest():
            due.put_nowait(items)
        due.put_nowait(None)
        await poster
        return report

    async def _post_labels(
        self, client: DemoClient, due: "asyncio.Queue[list[dict[str, Any]] | None]"
    ) -> None:
        while (items := await due.get()) is not None:
            await client.send("POST", "/v1/feedback", items)
            self._labels += len(items)

    async def _settle(self, client: DemoClient) -> Metrics:
        """Wait until everything that the proxy saw is stored, judged and counted."""
        with self._console.status("Waiting until everything is stored and judged ..."):
            return await client.wait_until(_is_settled, timeout_s=_SETTLE_S)

    async def _gather(
        self,
        client: DemoClient,
        report: TrafficReport,
        metrics: Metrics,
        once: bool,  # noqa: FBT001 - as the option
    ) -> DemoNumbers:
        with self._console.status("Explaining one late flight ..."):
            explanation = await self._explain(client, report)
        alarms = await client.get("/v1/alarms", deployment=DEPLOYMENT, order="time", limit=1000)
        departs = self._stream.departs
        return DemoNumbers(
            events_seen=metrics.total("capture_events_total", outcome="seen"),
            inferences_stored=metrics.total("inferences_total"),
            orphans=_orphans(metrics),
            quarantined=metrics.total("quarantined_events_total"),
            dropped=metrics.total("capture_events_total", outcome="dropped"),
            # Each flight is asked about once: what came twice was sent again by the proxy.
            duplicates=0,
            redelivered=metrics.total("duplicate_events_total"),
            lost=_missing(metrics),
            rows=metrics.total("inference_rows_total"),
            outlier_rows=metrics.total("outlier_rows_total"),
            drift_alarms=tuple(
                tell_alarm(alarm, self._stream, report, rows_before=_REFERENCE_ROWS)
                for alarm in alarms["items"]
            ),
            outliers=tuple(await self._outliers(client)),
            explanation=explanation,
            requests=report.requests,
            failures=sum(report.failures.values()),
            labels=self._labels,
            first_day=departs(0).date().isoformat(),
            last_day=departs(self._stream.n_rows - 1).date().isoformat(),
            auc_held_out=self._facts.auc,
            auc_stream=stream_auc(self._stream, report),
            seconds=0.0,
            url=None if once else self._setting.service_url,
            data=str(self._setting.data / "service"),
        )

    @staticmethod
    async def _verdicts(client: DemoClient) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = await client.get("/v1/verdicts", deployment=DEPLOYMENT, limit=1000, **cursor)
            items += page["items"]
            if page["next"] is None:
                return items
            cursor = {"cursor": page["next"]}

    async def _explain(self, client: DemoClient, report: TrafficReport) -> ExplainedFlight | None:
        request = flight_to_explain(self._stream, report)
        if request is None:
            return None
        found = await client.get(
            "/v1/inferences", deployment=DEPLOYMENT, where=f"request_id = '{request.id}'"
        )
        if not found["items"]:
            return None
        body = {"inference_id": found["items"][0]["id"], "output": "probability"}
        explanation = await client.send("POST", "/v1/explanations", body)
        return tell_explanation(explanation, self._stream, request)

    async def _outliers(self, client: DemoClient) -> Iterator[Outlier]:
        found = await client.get(
            "/v1/inferences", deployment=DEPLOYMENT, where="outlier_score > 40", limit=1000
        )
        rows = [
            Outlier(
                request_id=item["request_id"],
                score=row["outlier_score"],
                features=row["features"],
            )
            for item in found["items"]
            for row in item["rows"]
            if row["outlier_score"] is not None
        ]
        rows.sort(key=lambda row: -row.score)
        return iter(rows[:_SHOWN_OUTLIERS])


def _orphans(metrics: Metrics) -> int:
    return metrics.total("orphans_total") - metrics.total("orphans_completed_total")


def _missing(metrics: Metrics) -> int:
    """Return how many events that the proxy saw are nowhere.

    Duplicates are nowhere in this: the demo asks about each flight once, so they are what the
    proxy sent again because a killed collector could not acknowledge it any more.
    """
    found = (
        2 * metrics.total("inferences_total")
        + _orphans(metrics)
        + metrics.total("quarantined_events_total")
        + metrics.total("capture_events_total", outcome="dropped")
    )
    return metrics.total("capture_events_total", outcome="seen") - found


def _is_settled(metrics: Metrics) -> bool:
    pending = metrics.total("capture_pending_events") + metrics.total("journal_lag_events")
    return pending == 0 and _missing(metrics) == 0
