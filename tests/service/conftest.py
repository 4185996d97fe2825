"""A data folder worked on by the stages, step by step, and the API over it."""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from sidelight.adapters import EmbeddedDocuments, EmbeddedJournals, Inferences, Lake
from sidelight.logger._segments import SegmentWriter
from sidelight.service import _access_log, _registered
from sidelight.service._api import create_app
from sidelight.service._context import Context
from sidelight.service._explaining import Explaining
from sidelight.service._ingest_client import event_batch
from sidelight.service._raw_events import RawEvents
from sidelight.service._settings import Settings
from sidelight.service._stage import DETECTION, STORING, Stage
from sidelight.service._stage_decoding import DecodingStage
from sidelight.service._stage_detection import DetectionStage
from sidelight.service._stage_forgetting import ForgettingStage
from sidelight.service._stage_storing import StoringStage

EPOCH = datetime(2013, 1, 1, tzinfo=UTC)
_SECOND_NS = 1_000_000_000
_MOST_STEPS = 400


class DoorWithoutProcess:
    """The door as the API sees it: keeps a batch of events in the journal."""

    def __init__(self, writer: SegmentWriter) -> None:
        self._writer = writer
        self.is_there = True

    async def send(self, event_type: str, items: list[dict[str, Any]]) -> None:
        head = "POST /events HTTP/1.1\r\nContent-Type: application/cloudevents-batch+json\r\n\r\n"
        self._writer.write(head.encode(), event_batch(event_type, items)).result(100)

    async def counters(self) -> dict[str, Any]:
        return {"accepted": {"batch": 1}, "refused": {"no_event": 2}} if self.is_there else {}

    async def close(self) -> None:
        """Nothing is open."""


class Folder:
    """A data folder: events go in, the stages are called by hand with a clock of their own."""

    def __init__(self, data: Path, *, orphan_after_s: float = 60.0) -> None:
        self.data = data
        self.writer = SegmentWriter(data)
        self.journals = EmbeddedJournals(data, groups=(STORING, DETECTION))
        self.documents = EmbeddedDocuments(data)
        self.door = DoorWithoutProcess(self.writer)
        self.now_ns = 10**18
        self._orphan_after_s = orphan_after_s
        self._sent = 0
        self.begin()

    def begin(self) -> None:
        """Make the stages anew, as a restart does."""
        self.decoding = DecodingStage(
            self.journals,
            self.documents,
            orphan_after_s=self._orphan_after_s,
            max_inflated_bytes=1 << 20,
        )
        self.storing = StoringStage(self.journals, self.documents, Lake(self.data))
        self.detection = DetectionStage(self.journals, self.documents, Lake(self.data), self.data)
        forgetting = ForgettingStage(self.journals, self.documents, self.data, self.detection)
        self.stages: list[Stage] = [self.decoding, self.storing, forgetting, self.detection]

    def close(self) -> None:
        self.documents.close()
        self.journals.close()
        self.writer.close()

    def put(self, headers: Mapping[str, str], body: bytes, *, path: str = "/") -> int:
        """Keep one request to the door; return its position."""
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        head = "\r\n".join([*lines, "", ""]).encode()
        return self.writer.write(head, body).result(100)

    def half(
        self,
        side: str,
        payload: object,
        *,
        request_id: str,
        deployment: str = "prod/flights",
        minutes: float | None = None,
        **attributes: str,
    ) -> int:
        """Keep a request or a response; ``payload`` is JSON, or bytes as they are."""
        namespace, _, name = deployment.partition("/")
        headers = {
            "ce-specversion": "1.0",
            "ce-type": f"org.kubeflow.serving.inference.{side}",
            "ce-source": "/x",
            "ce-id": request_id,
            "ce-namespace": namespace,
            "ce-inferenceservicename": name,
            "content-type": "application/json",
            **{f"ce-{key}": value for key, value in attributes.items()},
        }
        if minutes is not None:
            headers["ce-time"] = (EPOCH + timedelta(minutes=minutes)).isoformat()
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return self.put(headers, body)

    def ask(
        self,
        rows: Sequence[Sequence[Any]],
        answers: Sequence[Any] | None = None,
        *,
        names: Sequence[str] = ("age", "sex"),
        **where: Any,
    ) -> str:
        """Keep both halves of a V2 inference with one tensor for each feature."""
        where.setdefault("request_id", f"r{self._sent:06d}")
        where.setdefault("minutes", self._sent)
        self._sent += 1
        answers = [float(row[0]) for row in rows] if answers is None else answers
        inputs = [_tensor(name, [row[index] for row in rows]) for index, name in enumerate(names)]
        version = where.get("version")
        answered: dict[str, Any] = {"model_name": "m", "outputs": [_tensor("late", answers)]}
        where.pop("version", None)
        self.half("request", {"inputs": inputs}, **where)
        self.half(
            "response",
            answered | ({"model_version": version} if version else {}),
            **where,
            statuscode="200",
            latencyms="12.5",
        )
        return str(where["request_id"])

    def work(self) -> None:
        """Let all stages work until nothing is left; each step is a second later."""
        for _ in range(_MOST_STEPS):
            self.now_ns += _SECOND_NS
            if not [stage for stage in self.stages if stage.step(self.now_ns)]:
                return
        pytest.fail("the stages do not come to an end")

    def counter(self, name: str, **labels: str) -> float:
        """Return the sum of a counter over everything that has these labels."""
        return sum(
            value
            for (found, given), value in self.documents.counters().items()
            if found == name and labels.items() <= dict(given).items()
        )

    def quarantine(self) -> list[dict[str, Any]]:
        return [value for _, _, value in self.documents.find("quarantine", limit=1000)]


def _tensor(name: str, values: Sequence[Any]) -> dict[str, Any]:
    datatype = "BYTES" if isinstance(values[0], str) else "FP64"
    return {"name": name, "shape": [len(values)], "datatype": datatype, "data": list(values)}


class Api:
    """A client of the API over a folder, without a socket between."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._runner = asyncio.Runner()
        # What nobody handles is answered by 500, as a server does.
        transport = httpx.ASGITransport(create_app(context), raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://api")

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.run(self.context.close())
        self._runner.close()

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._runner.run(self._client.request(method, path, **options))

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        return self.request("GET", path, params=parameters)

    def post(self, path: str, value: object = None) -> httpx.Response:
        return self.request("POST", path, json=value)

    def put(self, path: str, value: object) -> httpx.Response:
        return self.request("PUT", path, json=value)

    def problem(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Return the problem document that answers a request."""
        answer = self.request(method, path, **options)
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        value: dict[str, Any] = answer.json()
        assert value["status"] == answer.status_code
        assert value.keys() >= {"type", "title", "status", "detail"}
        assert value.keys() <= {"type", "title", "status", "detail", "expected", "got", "hint"}
        assert all(
            isinstance(value[name], str) and value[name] for name in value.keys() - {"status"}
        )
        return value

    def items(self, path: str, **parameters: Any) -> list[dict[str, Any]]:
        """Return the items of one page."""
        answer = self.get(path, **parameters)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["items"]
        return found

    def pages(self, path: str, **parameters: Any) -> list[dict[str, Any]]:
        """Return the items of all pages."""
        found: list[dict[str, Any]] = []
        while True:
            answer = self.get(path, **parameters)
            assert answer.status_code == 200, answer.text
            found += answer.json()["items"]
            following = answer.json()["next"]
            if following is None:
                return found
            parameters["cursor"] = following


def open_api(folder: Folder, settings: Settings | None = None) -> Api:
    settings = settings or Settings(data=folder.data)
    documents = EmbeddedDocuments(folder.data)
    inferences = Inferences(folder.data, documents)
    door: Any = folder.door
    context = Context(
        settings=settings,
        documents=documents,
        inferences=inferences,
        raw=RawEvents(folder.data, documents, max_inflated_bytes=settings.limits.decompressed),
        explaining=Explaining(settings, documents, inferences),
        ingest=door,
    )
    return Api(context)


class _MidMonth(datetime):
    """The time, in the middle of its month: a file a month is one file while a test runs."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz).replace(day=15)


@pytest.fixture(autouse=True)
def _clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test end otherwise at the end of a month, or when a second has passed."""
    monkeypatch.setattr(_access_log, "datetime", _MidMonth)
    monkeypatch.setattr(_registered, "_FRESH_S", -1.0)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    opened = Folder(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture
def api(folder: Folder) -> Iterator[Api]:
    opened = open_api(folder)
    yield opened
    opened.close()


@pytest.fixture
def make_api(folder: Folder) -> Iterator[Any]:
    """Open the API with other settings."""
    opened: list[Api] = []

    def make(settings: Settings) -> Api:
        opened.append(open_api(folder, settings))
        return opened[-1]

    yield make
    for api in opened:
        api.close()


@pytest.fixture
def make_folder(tmp_path: Path) -> Iterator[Any]:
    """Open folders with other parameters."""
    opened: list[Folder] = []

    def make(**options: Any) -> Folder:
        opened.append(Folder(tmp_path / f"data{len(opened)}", **options))
        return opened[-1]

    yield make
    for folder in opened:
        folder.close()
