"""The thread in which a sink does what blocks."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import Any, Final, TypeVar

_Result = TypeVar("_Result")

_Item = TypeVar("_Item")

# The interpreter is shared with the model's traffic, which must not wait for a long batch. Left
# alone, a busy thread gives it up every five milliseconds only.
_TURN_ITEMS: Final = 32
_TURN_PAUSE_S: Final = 0.0001

_Job = tuple[Callable[[], Any], "asyncio.Future[Any]"]


class SinkWorker:
    """One thread that runs blocking calls in order, for whoever awaits them.

    It is a daemon, unlike the threads of an executor: a disk or a host name server that does not
    answer must not keep a process from ending whose grace is over.

    Parameters
    ----------
    name : str
        Of the thread.

    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """Run ``work`` in the thread, and return or raise what it does.

        A caller that is cancelled leaves; the work itself goes on to its end.
        """
        future: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        self._jobs.put((work, future))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        return await future

    def stop(self) -> None:
        """End the thread behind what was asked of it so far; a later ``run`` begins a new one."""
        if self._thread is not None:
            self._thread = None
            self._jobs.put(None)
            self._jobs = SimpleQueue()

    def _work(self) -> None:
        jobs = self._jobs
        while (job := jobs.get()) is not None:
            work, future = job
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
                _tell(future, future.set_exception, error)
            else:
                _tell(future, future.set_result, result)
            del job, work, future


class WorkCancelled(Exception):  # noqa: N818 - a signal, not an error
    """Whoever asked for the work has left."""


def unhurried(items: Iterable[_Item], cancelled: threading.Event) -> Iterator[_Item]:
    """Yield items with pauses in which other threads run; for long work in Python.

    Raises
    ------
    WorkCancelled
        Between items, when ``cancelled`` is set.

    """
    for number, item in enumerate(items):
        if number % _TURN_ITEMS == 0:
            if cancelled.is_set():
                raise WorkCancelled
            if number:
                time.sleep(_TURN_PAUSE_S)
        yield item


def _tell(future: "asyncio.Future[Any]", settle: Callable[[Any], None], value: Any) -> None:
    def unless_cancelled() -> None:
        if not future.done():
            settle(value)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        future.get_loop().call_soon_threadsafe(unless_cancelled)
