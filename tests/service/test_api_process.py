"""The API's process prepares itself for questions, and waits for no store that is silent."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from sidelight.adapters import LakeError
from sidelight.service import _api_process


class Inferences:
    """A store that notes what it is asked."""

    def __init__(
        self, error: Exception | None = None, prepared: threading.Event | None = None
    ) -> None:
        self.asked: list[str] = []
        self.error = error
        self.prepared = prepared

    def find(self, *, limit: int, order: str) -> tuple[list[Any], None]:
        """Note the question."""
        is_prepared = self.prepared is not None and self.prepared.is_set()
        self.asked.append(f"find {limit} {order}{', prepared' if is_prepared else ''}")
        if self.error is not None:
            raise self.error
        return [self], None

    id = "newest"

    def get(self, inference_id: str) -> None:
        """Note the question."""
        self.asked.append(f"get {inference_id}")


def context(inferences: Inferences) -> Any:
    """Return as much of a context as the preparation takes."""
    return SimpleNamespace(inferences=inferences)


def test_routes_and_the_newest_inference_are_ready_before_anybody_asks() -> None:
    app, prepared = FastAPI(), threading.Event()
    inferences = Inferences(prepared=prepared)

    _api_process._prepare(app, context(inferences), prepared)

    assert app.openapi_schema is not None
    newest, oldest = ["find 1 -time", "get newest"], ["find 1 time, prepared", "get newest"]
    assert inferences.asked == [*newest, *oldest]


def test_a_store_that_fails_does_not_keep_the_api_from_starting() -> None:
    inferences = Inferences(LakeError("no file"))

    prepared = threading.Event()
    _api_process._prepare(FastAPI(), context(inferences), prepared)

    assert inferences.asked == ["find 1 -time", "find 1 time"]
    assert prepared.is_set()


def test_a_store_that_does_not_answer_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    said, answering = threading.Event(), threading.Event()
    monkeypatch.setattr(_api_process, "say_ready", said.set)
    monkeypatch.setattr(_api_process, "_PREPARED_WITHIN_S", 0.0)

    async def started(self: Any, sockets: Any = None) -> None:
        del self, sockets

    monkeypatch.setattr(uvicorn.Server, "startup", started)

    def prepare(_: threading.Event) -> None:
        answering.wait(60)

    server = _api_process._Server(uvicorn.Config(lambda: None), prepare)

    asyncio.run(server.startup())

    assert said.is_set()
    answering.set()
