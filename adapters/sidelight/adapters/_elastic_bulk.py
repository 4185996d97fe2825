"""Bulk requests whose every item ends somewhere: stored, there already, or refused for good."""

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Final, Literal, NamedTuple

import orjson

from sidelight.adapters._elastic_client import Answer, ElasticClient, UnreachableError
from sidelight.adapters.errors import AdapterError

log = logging.getLogger(__name__)

Outcome = Literal["stored", "already", "reduced", "refused", "missing"]

_MAX_ITEMS: Final = 1000
_MAX_BYTES: Final = 4 << 20
_SHORTEST_S: Final = 0.1
_LONGEST_S: Final = 5.0
_OK: Final = 200
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_TOO_LARGE: Final = 413
_SERVER: Final = 500
# What an operator can change without changing the document: it is sent again until it is taken.
_WAITING: Final = frozenset({401, 403, 404, 408, 429})
_BLOCKS: Final = frozenset(
    {
        *("cluster_block_exception", "index_closed_exception", "validation_exception"),
        *("process_cluster_event_timeout_exception", "es_rejected_execution_exception"),
        *("rejected_execution_exception", "unavailable_shards_exception"),
        *("circuit_breaking_exception", "security_exception"),
    }
)
_ANSWER: Final = {"filter_path": "items.*.status,items.*.error.type,items.*.error.reason"}
# As both servers say that somebody has set `index.blocks.write`.
_WRITE_BLOCK: Final = "index write (api)"
# What every document has and every mapping takes: the rest of it can be the reason of a refusal.
_UNTRUSTED: Final = ("features", "outputs", "labels", "tags")


class StoppedError(AdapterError):
    """The writer is closed; what was not acknowledged is to be done again."""


class Operation(NamedTuple):
    """One line of a bulk request with its document.

    ``head`` says which; a ``delete`` has no body, the body of an ``update`` is the whole request.
    """

    action: Literal["index", "update", "delete"]
    head: Mapping[str, Any]
    body: bytes = b""
    is_reduced: bool = False

    def lines(self) -> bytes:
        """Return the lines of the request."""
        head = orjson.dumps({self.action: self.head})
        return b"%b\n%b\n" % (head, self.body) if self.body else head + b"\n"

    def reduced(self, reason: str) -> "Operation | None":
        """Return the same with nothing in it that a mapping could refuse; None when it is so."""
        if self.is_reduced or self.action == "delete":
            return None
        body = orjson.loads(self.body)
        document = body["doc"] if self.action == "update" else body
        kept = document.setdefault("unindexed", {})
        for name in _UNTRUSTED:
            if value := document.pop(name, None):
                kept[name] = {**value, **kept.get(name, {})}
        document["reduced"] = reason
        return self._replace(body=orjson.dumps(body), is_reduced=True)


class Bulk:
    """Sends operations until each has an outcome, however long that takes.

    Parameters
    ----------
    client : ElasticClient
    stopping : threading.Event
        Ends the waiting for a server that does not answer.
    on_trouble : callable
        Told a reason each time that something must be sent again: ``unreachable``, ``throttled``,
        ``status_503``, ... From any thread.
    connections : int
        Requests at one time.

    """

    def __init__(
        self,
        client: ElasticClient,
        stopping: threading.Event,
        on_trouble: Callable[[str], None],
        *,
        connections: int = 2,
    ) -> None:
        self._client = client
        self._stopping = stopping
        self._on_trouble = on_trouble
        self._n_ahead = 2 * connections
        self._pool = ThreadPoolExecutor(connections, thread_name_prefix="sidelight-bulk")

    def close(self) -> None:
        """End the threads; ``stopping`` should be set."""
        self._pool.shutdown(cancel_futures=True)

    def send(self, operations: Iterator[Operation]) -> Counter[Outcome]:
        """Send operations; order is kept for one id by its version only.

        Raises
        ------
        StoppedError
            When the writer was closed before all had an outcome; some may have been stored.

        """
        total: Counter[Outcome] = Counter()
        pending: deque[Future[Counter[Outcome]]] = deque()
        try:
            for chunk in _chunks(operations, self._stopping):
                # Documents are made as they are sent: never all of them in memory.
                if len(pending) > self._n_ahead:
                    total += pending.popleft().result()
                pending.append(self._pool.submit(self._settle, chunk))
            while pending:
                total += pending.popleft().result()
        finally:
            # Nothing goes on behind the back of who is told that it failed.
            wait(pending)
        return total

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, **params: str
    ) -> Answer:
        """Ask until there is an answer that a repetition would not change."""
        pause = _Pause(self._stopping)
        while True:
            try:
                answer = self._client.request(method, path, body, params)
            except UnreachableError as error:
                self._trouble(error.reason, str(error))
            else:
                if answer.status < _SERVER and answer.status not in {401, 403, 408, 429}:
                    return answer
                self._trouble(_reason(answer.status), _type_of(answer.body))
            pause.wait()

    def _settle(self, operations: list[Operation]) -> Counter[Outcome]:
        total: Counter[Outcome] = Counter()
        pause = _Pause(self._stopping)
        while operations:
            try:
                answer = self._client.request(
                    "POST", "/_bulk", b"".join(item.lines() for item in operations), _ANSWER
                )
            except UnreachableError as error:
                self._trouble(error.reason, str(error))
                pause.wait()
                continue
            if answer.status in {400, _TOO_LARGE}:
                return total + self._divided(operations, answer)
            if answer.status != _OK:
                self._trouble(_reason(answer.status), _type_of(answer.body))
                pause.wait()
                continue
            items = answer.body.get("items", ())
            if len(items) != len(operations):
                self._trouble("unreadable", f"{len(items)} answers to {len(operations)} items")
                pause.wait()
                continue
            n_before = len(operations)
            operations, must_wait = self._judge(operations, items, total)
            if must_wait:
                # What was taken shows that the server works on: it is asked again soon.
                pause.wait(again=len(operations) == n_before)
        return total

    def _divided(self, operations: list[Operation], answer: Answer) -> Counter[Outcome]:
        """Send halves of what was refused as a whole; give up what is refused alone."""
        if len(operations) > 1:
            half = len(operations) // 2
            return self._settle(operations[:half]) + self._settle(operations[half:])
        (alone,) = operations
        reason = "too_large" if answer.status == _TOO_LARGE else _type_of(answer.body)
        return Counter({_refused(alone, reason): 1})

    def _judge(
        self,
        operations: list[Operation],
        items: Sequence[Mapping[str, Any]],
        total: Counter[Outcome],
    ) -> tuple[list[Operation], bool]:
        """Return what must be sent again, and whether the server asks for a pause."""
        again: list[Operation] = []
        troubles: Counter[str] = Counter()
        for operation, item in zip(operations, items, strict=True):
            (told,) = item.values()
            status = told["status"]
            if status < 300:  # noqa: PLR2004 - all of them are success
                total["reduced" if operation.is_reduced else "stored"] += 1
                continue
            error, text = _error_of(told)
            if status == _CONFLICT and operation.action == "index":
                total["already"] += 1
            elif status == _NOT_FOUND and operation.action != "index":
                total["missing"] += 1
            elif operation.action == "update" and _WRITE_BLOCK in text:
                # An old index that somebody has closed to writing; rows would wait for it.
                total[_refused(operation, error)] += 1
            elif status == _CONFLICT:
                again.append(operation)
            elif status in _WAITING or status >= _SERVER or error in _BLOCKS:
                troubles[_reason(status)] += 1
                again.append(operation)
            elif (smaller := operation.reduced(error)) is not None:
                again.append(smaller)
            else:
                total[_refused(operation, error)] += 1
        for reason in troubles:
            self._trouble(reason, "items of a bulk request")
        return again, bool(troubles)

    def _trouble(self, reason: str, detail: str) -> None:
        log.debug("sent again", extra={"reason": reason, "detail": detail})
        self._on_trouble(reason)


class _Pause:
    """Waits longer each time, from 0.1 s to 5 s."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._next_s = _SHORTEST_S

    def wait(self, *, again: bool = True) -> None:
        if not again:
            self._next_s = _SHORTEST_S
        if self._stopping.wait(self._next_s):
            raise StoppedError
        self._next_s = min(2 * self._next_s, _LONGEST_S)


def _chunks(
    operations: Iterator[Operation], stopping: threading.Event
) -> Iterator[list[Operation]]:
    chunk: list[Operation] = []
    size = 0
    for operation in operations:
        if chunk and (len(chunk) >= _MAX_ITEMS or size + len(operation.body) > _MAX_BYTES):
            yield chunk
            chunk, size = [], 0
            if stopping.is_set():
                raise StoppedError
        chunk.append(operation)
        size += len(operation.body)
    if chunk:
        yield chunk


def _refused(operation: Operation, reason: str) -> Outcome:
    # Its id is no secret, what it says may be.
    log.error("document refused for good", extra={"id": operation.head["_id"], "reason": reason})
    return "refused"


def _error_of(told: Mapping[str, Any]) -> tuple[str, str]:
    error = told.get("error") or {}
    return str(error.get("type", "")), str(error.get("reason", ""))


def _reason(status: int) -> str:
    return "throttled" if status == 429 else f"status_{status}"  # noqa: PLR2004 - Too Many Requests


def _type_of(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    found = error.get("type") if isinstance(error, dict) else None
    return found if isinstance(found, str) else "unknown"
