"""One call of a predict function, from its arguments to its result, as an exchange."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import orjson

from sidelight.logger._copied_exchange import CLIENT_GONE, FAILED
from sidelight.logger._emitter_thread import ThreadedEmitter
from sidelight.logger._exchange import Exchange
from sidelight.logger._tensor_json import OPTIONS, Tensors, TensorWriter, rows_of
from sidelight.logger._tensor_values import Unexpressible

log = logging.getLogger(__name__)

_METHOD: Final = b"POST"
_JSON: Final = b"content-type: application/json\r\n"
_OK: Final = b"HTTP/1.1 200 OK\r\n"
_ERROR: Final = b"HTTP/1.1 500 Internal Server Error\r\n"
_FAILURE: Final = "a call cannot be captured"
_TOO_LARGE: Final = "too_large"
_SHORT: Final = (bool, int, float, type(None))
_ITEM_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class CallForm:
    """How calls of one function are written down.

    Parameters
    ----------
    emitter : ThreadedEmitter
    name : str
        Of the function, for the log.
    target : bytes
        Path that names the model.
    bind : callable
        Returns arguments by name.
    writer, result_writer : TensorWriter
        For arguments and for results, which are not the features that arguments are.
    request_id : str or ContextVar
        Name of the argument, or the variable, that holds it; empty for none.
    limit : int
        Bytes of a body that are kept.

    """

    emitter: ThreadedEmitter
    name: str
    target: bytes
    bind: Callable[[tuple[Any, ...], Mapping[str, Any]], dict[str, Any]]
    writer: TensorWriter
    result_writer: TensorWriter
    request_id: str | ContextVar[str] | ContextVar[str | None]
    limit: int
    line: bytes = field(init=False)
    is_wanted: bool = field(init=False)

    def __post_init__(self) -> None:
        line = b"%b %b HTTP/1.1\r\n" % (_METHOD, self.target)
        wanted = self.emitter.wants(_METHOD, self.target, line + b"\r\n")
        object.__setattr__(self, "line", line)
        object.__setattr__(self, "is_wanted", wanted)

    def leave_out(self, what: str, reason: str, value: object) -> None:
        """Count what cannot be written down; the log names its type, never its value."""
        if self.emitter.leave_out(f"{what}_{reason}") == 1:
            log.warning(
                "a value is left out of captured calls",
                extra={"function": self.name, "reason": reason, "type": type(value).__name__},
            )


class CapturedCall:
    """One call; none of its methods raises.

    Parameters
    ----------
    form : CallForm
    arguments, keywords : tuple, mapping
        Of the call, as they are before it.

    """

    __slots__ = (
        "_form",
        "_items",
        "_n_bytes",
        "_request",
        "_request_id",
        "_started",
        "_started_ns",
    )

    def __init__(
        self, form: CallForm, arguments: tuple[Any, ...], keywords: Mapping[str, Any]
    ) -> None:
        self._form = form
        self._request = _Body(b"", 1)
        self._request_id = b""
        self._items: list[Any] | None = []
        self._n_bytes = 0
        if form.is_wanted:
            try:
                self._request_id, self._request = _request(form, arguments, keywords)
            except Exception:
                form.emitter.tap_errors += 1
                log.exception(_FAILURE, extra={"function": form.name})
        # What the writing takes is no time of the model's.
        self._started_ns = time.time_ns()
        self._started = time.perf_counter()

    def end(self, result: Any) -> None:
        """Note the result, and offer the exchange."""
        if self._form.is_wanted:
            self._offer(200, lambda: _result(self._form, result))

    def fail(self, error: BaseException) -> None:
        """Note that the function raised, or that its caller ended it."""
        if not self._form.is_wanted:
            return
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            # What a generator has given out by then has been answered.
            status = 200 if self._items else CLIENT_GONE
            self._offer(status, self._yielded, aborted_by="client")
        else:
            # The text of an error may tell what it was called with.
            body = orjson.dumps({"error": type(error).__name__})
            self._offer(FAILED, lambda: body)

    def add(self, item: Any) -> None:
        """Note what a generator gives out."""
        if self._items is None or not self._form.is_wanted:
            return
        if isinstance(item, (str, bytes)):
            self._n_bytes += len(item)
        elif isinstance(item, _SHORT):
            self._n_bytes += _ITEM_BYTES
        else:
            self._n_bytes += getattr(item, "nbytes", None) or _ITEM_BYTES
            if isinstance(item, np.ndarray):
                # Generators fill the same array again.
                item = item.copy()
        self._items.append(item)
        if self._n_bytes > self._form.limit:
            self._items = None

    def end_yielded(self) -> None:
        """Note that a generator has ended, and offer the exchange."""
        if self._form.is_wanted:
            self._offer(200, self._yielded)

    def _yielded(self) -> bytes:
        items = self._items
        if items is None:
            self._form.leave_out("result", _TOO_LARGE, [])
            return b""
        if not items:
            return b""
        if set(map(type, items)) == {str} and len(items) != max(self._request.n_rows, 2):
            # The pieces of one text, unless there is one for each of several rows.
            return _result(self._form, ["".join(items)])
        return _result(self._form, items)

    def _offer(self, status: int, write: Callable[[], bytes], *, aborted_by: str = "") -> None:
        elapsed = time.perf_counter() - self._started
        try:
            form = self._form
            request, request_cut, request_digest = _cut(self._request.text, form.limit)
            body = write()
            response, response_cut, response_digest = _cut(body, form.limit)
            head = b"" if status == CLIENT_GONE else _OK if status < FAILED else _ERROR
            form.emitter.offer(
                Exchange(
                    method=_METHOD,
                    target=form.target,
                    request_head=_head(form.line, request),
                    request_body=request,
                    response_head=_head(head, response) if head else b"",
                    response_body=response,
                    status=status,
                    started_ns=self._started_ns,
                    finished_ns=self._started_ns + int(elapsed * 1e9),
                    latency_ms=elapsed * 1e3,
                    request_cut=request_cut,
                    response_cut=response_cut,
                    request_id=self._request_id,
                    request_digest=request_digest,
                    response_digest=response_digest,
                    aborted_by=aborted_by,
                )
            )
        except Exception:
            self._form.emitter.tap_errors += 1
            log.exception(_FAILURE, extra={"function": self._form.name})


@dataclass(frozen=True, slots=True)
class _Body:
    text: bytes
    n_rows: int


def _request(
    form: CallForm, arguments: tuple[Any, ...], keywords: Mapping[str, Any]
) -> tuple[bytes, _Body]:
    given = form.bind(arguments, keywords)
    request_id: Any = None
    if isinstance(form.request_id, ContextVar):
        request_id = form.request_id.get(None)
    elif form.request_id:
        request_id = given.pop(form.request_id, None)
    known = b"" if request_id is None else str(request_id).strip().encode(errors="replace")
    return known, _written(form, given)


def _written(form: CallForm, given: dict[str, Any]) -> _Body:
    tensors: Tensors = []
    for name, value in given.items():
        try:
            tensors += form.writer.tensors(name, value)
        except Unexpressible as error:
            if error.reason == _TOO_LARGE:
                form.leave_out("argument", error.reason, value)
                continue
            text = _json(form, "argument", value)
            if text and len(given) == 1:
                return _Body(text, 1)
            if text:
                tensors.append(_document(name, text))
        except Exception as error:  # noqa: BLE001 - a caller's type may raise anything
            _log_unread("an argument cannot be read", error)
            form.leave_out("argument", "unreadable", value)
    # A single value beside a table belongs to each of its rows.
    if rows_of([tensor for tensor in tensors if tensor["shape"] != [1]]) != 1:
        for tensor in tensors:
            if tensor["shape"] == [1]:
                tensor["shape"] = []
    return _Body(_dumped(form, "argument", "inputs", tensors, given), rows_of(tensors))


def _result(form: CallForm, result: Any) -> bytes:
    several = result if isinstance(result, tuple) and _are_arrays(result) else None
    tensors: Tensors = []
    try:
        if several is None:
            tensors += form.result_writer.tensors("y", result)
        else:
            for place, one in enumerate(several):
                tensors += form.result_writer.tensors(f"y{place}", one)
    except Unexpressible as error:
        if error.reason != _TOO_LARGE:
            return _json(form, "result", result)
        form.leave_out("result", error.reason, result)
        return b""
    except Exception as error:  # noqa: BLE001 - a caller's type may raise anything
        _log_unread("a result cannot be read", error)
        form.leave_out("result", "unreadable", result)
        return b""
    return _dumped(form, "result", "outputs", tensors, result)


def _log_unread(what: str, error: Exception) -> None:
    # Neither the text nor the trace: they could quote the value.
    log.debug(what, extra={"error": type(error).__name__})


def _are_arrays(items: Sequence[Any]) -> bool:
    return bool(items) and all(hasattr(item, "shape") or hasattr(item, "columns") for item in items)


def _document(name: str, text: bytes) -> dict[str, Any]:
    return {"name": name, "shape": [], "datatype": "BYTES", "data": [text.decode()]}


def _json(form: CallForm, what: str, value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=OPTIONS)
    except (TypeError, ValueError, RecursionError):
        form.leave_out(what, "unsupported", value)
        return b""


def _dumped(form: CallForm, what: str, key: str, tensors: Tensors, value: Any) -> bytes:
    if not tensors:
        return b""
    try:
        return orjson.dumps({key: tensors}, option=OPTIONS)
    except (TypeError, ValueError):
        # Numbers beyond 64 bits, text that is no Unicode.
        form.leave_out(what, "unsupported", value)
        return b""


def _cut(body: bytes, limit: int) -> tuple[bytes, int, bytes]:
    if len(body) <= limit:
        return body, 0, b""
    return body[:limit], len(body) - limit, hashlib.sha256(body).digest()


def _head(line: bytes, body: bytes) -> bytes:
    return line + (_JSON if body else b"") + b"\r\n"
