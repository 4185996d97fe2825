"""An emitter for code that has no loop to spare: on a thread of its own, in each process."""

import atexit
import logging
import os
import threading
import time
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

from sidelight.logger._accounting import AddedTime
from sidelight.logger._accounting_text import capture_metrics
from sidelight.logger._emitter_worker import AccountsBySink, EmitterWorker, MakeEmitter
from sidelight.logger._exchange import Exchange
from sidelight.logger._selection import Selection

log = logging.getLogger(__name__)

_ANSWER_S: Final = 5.0
_LIVE: Final["WeakSet[ThreadedEmitter]"] = WeakSet()


class ThreadedEmitter:
    """Take exchanges from any thread and any loop, and deliver them on a thread of its own.

    The thread starts with the first exchange. A process that forks, as gunicorn does, leaves it
    to its parent: each child starts one of its own. At the end of the interpreter what was
    offered is delivered or spooled within the grace.

    Parameters
    ----------
    make : callable of Path or None to Emitter
        Makes the emitter on the thread that runs it, once for each process. It is given the
        folder below which its spools go, which no other process uses, or None.
    spool : Path, optional
        Parent of such folders: processes on one host share it. Each takes the first that is
        free, delivers what is in it, and takes over what others left.
    selection : Selection, optional
        What is captured at all.
    inbox_bytes : int, default 16 MiB
        Bound of what waits for the thread, in addition to the bounds of the emitter.
    grace_s : float, default 5.0
        How long the end of the interpreter may wait for the sink and the disk, seconds.

    Attributes
    ----------
    tap_errors : int
        Exchanges that were lost because of an error of ours.
    left_out : Counter of str
        Parts of captured calls that could not be written down, by reason.

    Raises
    ------
    ValueError
        When a bound is not positive.

    """

    def __init__(
        self,
        make: MakeEmitter,
        *,
        spool: Path | None = None,
        selection: Selection | None = None,
        inbox_bytes: int = 16 << 20,
        grace_s: float = 5.0,
    ) -> None:
        for name, value in (("inbox_bytes", inbox_bytes), ("grace_s", grace_s)):
            if not value > 0:
                raise ValueError(f"{name}: expected a positive number, got {value}")
        self.tap_errors = 0
        self.left_out: Counter[str] = Counter()
        self._make = make
        self._spool = spool
        self._selection = selection or Selection()
        self._inbox_bytes = inbox_bytes
        self._grace_s = grace_s
        self._is_closed = False
        # By process: the entries of a parent mean nothing in its child, and their locks may be
        # held by threads that are not there.
        self._workers: dict[int, EmitterWorker] = {}
        self._locks: dict[int, threading.RLock] = {}
        _LIVE.add(self)

    def wants(self, method: bytes, target: bytes, head: bytes) -> bool:
        """Whether the exchange that begins with this head is captured; see ``Tap``."""
        return self._selection.captures(method, target, head)

    def offer(self, exchange: Exchange) -> None:
        """Take one exchange; see ``Tap``. From any thread."""
        try:
            worker = self._workers.get(os.getpid())
            if worker is None or not worker.offer(exchange):
                self._offer_again(exchange)
        except Exception:
            self.tap_errors += 1
            log.exception("an exchange cannot be taken")

    def new_id(self) -> bytes:
        """Return a request id that no other process gives."""
        worker = self._workers.get(os.getpid())
        return (worker or self._start()).ids.new()

    def leave_out(self, reason: str) -> int:
        """Count a part that cannot be captured; return how often that was."""
        with self._lock():
            self.left_out[reason] += 1
            return self.left_out[reason]

    def accounts(self) -> AccountsBySink:
        """Return the numbers of this process since its thread began, by outlet; none before.

        Raises
        ------
        TimeoutError
            When the thread does not answer.

        """
        worker = self._workers.get(os.getpid())
        return worker.accounts(_ANSWER_S) if worker is not None else {}

    def prometheus(self, *, namespace: str, deployment: str) -> bytes:
        """Return the metrics of this process in the Prometheus text format 0.0.4.

        Parameters
        ----------
        namespace, deployment : str
            Labels of every sample; ``deployment`` is the bare name.

        Raises
        ------
        TimeoutError
            When the thread does not answer.

        """
        # What capture adds to an answer is measured at the proxy only.
        return capture_metrics(
            self.accounts(), AddedTime(), namespace=namespace, deployment=deployment
        )

    def flush(self, grace_s: float | None = None) -> bool:
        """Deliver what was offered, keep the rest in the spool, and end the thread.

        What is offered later begins another one.

        Parameters
        ----------
        grace_s : float, optional
            Seconds.

        Returns
        -------
        bool
            Whether it ended in time.

        """
        worker = self._workers.get(os.getpid())
        return worker is None or worker.end(self._grace_s if grace_s is None else grace_s)

    def close(self, grace_s: float | None = None) -> bool:
        """Do the same as ``flush``; what is offered later is dropped and counted."""
        self._is_closed = True
        return self.flush(grace_s)

    def _offer_again(self, exchange: Exchange) -> None:
        worker = self._start()
        if not worker.offer(exchange):
            worker.refuse()

    def _start(self) -> EmitterWorker:
        """Return the worker of this process; a new one when the last was flushed."""
        _flush_at_exit()
        pid = os.getpid()
        with self._lock():
            worker = self._workers.get(pid)
            if worker is not None and (
                not worker.is_ending or self._is_closed or worker.has_failed
            ):
                return worker
            worker = EmitterWorker(self._make, spool=self._spool, inbox_bytes=self._inbox_bytes)
            if self._is_closed:
                worker.end(self._grace_s)
            self._workers[pid] = worker
            return worker

    def _lock(self) -> threading.RLock:
        return self._locks.setdefault(os.getpid(), threading.RLock())


def _flush_all() -> None:
    """Give every emitter of this process its grace, all at the same time."""
    deadline = time.monotonic() + max((one._grace_s for one in _LIVE), default=0.0)  # noqa: SLF001
    for emitter in list(_LIVE):
        emitter.close(max(0.1, deadline - time.monotonic()))


@cache
def _flush_at_exit() -> None:
    # Functions of ``atexit`` come too late: the interpreter has refused new work for its
    # executors by then, and the disk and name resolution need those.
    register: Any = getattr(threading, "_register_atexit", atexit.register)
    register(_flush_all)
