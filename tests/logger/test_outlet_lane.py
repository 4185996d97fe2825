import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from sidelight.logger import _outlet_lane
from sidelight.logger._emitter import Emitter
from sidelight.logger._emitter_event import CapturedEvent
from sidelight.logger._exchange import Exchange
from sidelight.logger._outlet import SpoolFolder
from sidelight.logger._sink import Delivery

_GRACE_S = 600.0
_EXCHANGE = Exchange(
    method=b"POST",
    target=b"/v2/models/m/infer",
    request_head=b"POST / HTTP/1.1\r\n\r\n",
    request_body=b"{}",
    response_head=b"HTTP/1.1 200 OK\r\n\r\n",
    response_body=b"[1]",
    status=200,
    started_ns=10**18,
    finished_ns=10**18,
    latency_ms=1.0,
)


class Hanging:
    """A sink that never answers."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def send(self, _: Sequence[CapturedEvent]) -> Delivery:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def close(self) -> None:
        """Do nothing."""


def test_the_disk_has_its_part_of_the_grace_where_the_process_stood_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The clock of the loop is the test's: the disk is not cut off on a slow machine.
    monkeypatch.setattr(_outlet_lane, "_DISK_S", _GRACE_S)

    async def work() -> int:
        sink = Hanging()
        emitter = Emitter.of(sink, spool=SpoolFolder(folder=tmp_path))
        await emitter.start()
        emitter.offer(_EXCHANGE)
        await sink.asked.wait()
        flushing = asyncio.create_task(emitter.flush(_GRACE_S))
        await emitter._lanes[0]._hurry.wait()
        loop = asyncio.get_running_loop()
        steady = loop.time
        monkeypatch.setattr(loop, "time", lambda: steady() + 2 * _GRACE_S)
        await flushing
        return emitter.accounts()["sink"].spool_events

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        n_spooled = runner.run(work())

    assert n_spooled == 2
