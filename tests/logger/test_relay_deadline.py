"""One timer for many waits, on a clock that the test sets."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from sidelight.logger._relay_deadline import Deadline


class _Clocked(asyncio.SelectorEventLoop):
    """A loop whose clock stands still until the test moves it."""

    now = 0.0

    def time(self) -> float:
        return self.now

    async def pass_on(self, seconds: float) -> None:
        """Move the clock, and let what is due happen."""
        self.now += seconds
        for _ in range(4):
            await asyncio.sleep(0)


def _on_a_clock(
    scenario: Callable[[_Clocked, Deadline, list[float]], Awaitable[None]],
) -> None:
    with contextlib.closing(_Clocked()) as loop:
        expired: list[float] = []

        async def run() -> None:
            await scenario(loop, Deadline(lambda: expired.append(loop.now)), expired)

        loop.run_until_complete(run())


def test_a_wait_expires_once_and_not_early() -> None:
    async def scenario(loop: _Clocked, deadline: Deadline, expired: list[float]) -> None:
        deadline.begin(60)
        await loop.pass_on(59)
        assert expired == []
        await loop.pass_on(2)
        assert expired == [61]
        await loop.pass_on(1000)
        assert expired == [61]

    _on_a_clock(scenario)


def test_the_timer_of_a_wait_that_ended_serves_the_next_one() -> None:
    async def scenario(loop: _Clocked, deadline: Deadline, expired: list[float]) -> None:
        deadline.begin(60)
        await loop.pass_on(40)
        deadline.end()
        deadline.begin(60)
        await loop.pass_on(30)
        assert expired == []
        await loop.pass_on(29)
        assert expired == []
        await loop.pass_on(2)
        assert expired == [101]

    _on_a_clock(scenario)


def test_a_shorter_wait_does_not_last_as_long_as_the_one_before() -> None:
    async def scenario(loop: _Clocked, deadline: Deadline, expired: list[float]) -> None:
        deadline.begin(60)
        deadline.begin(10)
        await loop.pass_on(11)
        assert expired == [11]

    _on_a_clock(scenario)


def test_a_wait_that_ended_or_was_closed_does_not_expire() -> None:
    async def scenario(loop: _Clocked, deadline: Deadline, expired: list[float]) -> None:
        deadline.begin(60)
        deadline.end()
        await loop.pass_on(61)
        deadline.begin(60)
        deadline.close()
        await loop.pass_on(61)
        assert expired == []

    _on_a_clock(scenario)


@pytest.mark.parametrize(
    "new_loop",
    [
        pytest.param(asyncio.SelectorEventLoop, id="asyncio"),
        pytest.param(uvloop.new_event_loop, id="uvloop"),
    ],
)
def test_a_wait_expires_on_the_clock_of_the_loop(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def scenario() -> None:
        expired = asyncio.Event()
        Deadline(expired.set).begin(0.001)
        await expired.wait()

    with contextlib.closing(new_loop()) as loop:
        loop.run_until_complete(scenario())
