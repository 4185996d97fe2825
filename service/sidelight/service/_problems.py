"""Errors as ``application/problem+json`` (RFC 9457); the one table from error class to status."""

import re
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from sidelight.adapters import LakeError, QueryError, StoreError, WhereError
from sidelight.explainers import (
    BadAnswer,
    DeadlineExceeded,
    ExplainerError,
    ModelUnavailable,
)
from sidelight.logger.errors import EnvelopeError, JournalDamaged, JournalError, JournalFull
from sidelight.payloads import PayloadError
from sidelight.service._api_routes import methods_of
from sidelight.service.errors import (
    BadRequest,
    ConfigurationError,
    Gone,
    NotAcceptable,
    NotFound,
    NotReady,
    OnHold,
    ServiceError,
)

# The first class that fits decides, so that a narrower one stands before its base.
_STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (NotFound, 404, "not found"),
    (Gone, 410, "deleted"),
    (NotReady, 409, "something is missing first"),
    (OnHold, 409, "on legal hold"),
    (ConfigurationError, 400, "the configuration is wrong"),
    (BadRequest, 400, "the request cannot be understood"),
    (NotAcceptable, 406, "not acceptable"),
    (WhereError, 400, "the where expression cannot be understood"),
    (QueryError, 400, "the query cannot be understood"),
    (PayloadError, 400, "the value cannot be understood"),
    (EnvelopeError, 400, "no CloudEvent"),
    (ModelUnavailable, 503, "the model cannot be reached"),
    (BadAnswer, 502, "the model answered with something that is no prediction"),
    (DeadlineExceeded, 504, "no valid estimate before the deadline"),
    (LakeError, 503, "the lake cannot be read now"),
    (StoreError, 503, "the search server cannot answer now"),
    (ExplainerError, 400, "the explanation cannot be computed"),
    (JournalFull, 503, "no room on the disk"),
    (JournalDamaged, 500, "the archive is not what was written"),
    (JournalError, 503, "the journal cannot take this now"),
    (ServiceError, 500, "internal error"),
)

_WRONG_METHOD = 405
# How our messages say it; of several lines the first that does.
_SAID = re.compile(r"(?:expected|Input should be) (?P<expected>.+?), got (?P<got>.+)")


def problem(
    status: int,
    title: str,
    detail: str,
    *,
    expected: str = "",
    got: str = "",
    hint: str = "",
) -> dict[str, Any]:
    """Return a problem document; empty members are left out, what to do is always said."""
    optional = {"expected": expected, "got": got, "hint": hint or _hint(status)}
    return {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        **{name: value for name, value in optional.items() if value},
    }


def _hint(status: int) -> str:
    if status >= 500:  # noqa: PLR2004
        return "the log of the service says more"
    return "GET /openapi.json describes each route and its parameters"


def problem_of(error: Exception) -> dict[str, Any]:
    """Return the problem document of one of our errors."""
    status, title = next(
        (status, title) for kind, status, title in _STATUS if isinstance(error, kind)
    )
    parts = {name: str(getattr(error, name, "") or "") for name in ("expected", "got", "hint")}
    if not parts["expected"] and (said := _SAID.search(str(error))):
        parts |= said.groupdict()
    return problem(status, title, str(error), **parts)


async def answer_problem(_: Request, error: Exception) -> JSONResponse:
    """Handle one of our errors."""
    return _response(problem_of(error))


async def answer_http(request: Request, error: Exception) -> JSONResponse:
    """Handle what the framework raises: an unknown route, a wrong method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    detail = str(error.detail)
    answer = _response(problem(error.status_code, detail.lower(), detail))
    if error.status_code == _WRONG_METHOD:
        # The framework names the methods of one function alone.
        answer.headers["Allow"] = ", ".join(methods_of(request.app, request.scope))
    return answer


async def answer_unforeseen(_: Request, error: Exception) -> JSONResponse:
    """Handle what nobody foresaw; the framework raises it once more, for the log."""
    return _response(problem(500, "internal error", f"nobody foresaw this: {type(error).__name__}"))


async def answer_validation(_: Request, error: Exception) -> JSONResponse:
    """Handle a parameter or a body that does not have its documented form."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class alone
    lines = []
    for item in error.errors():
        path = ".".join(str(part) for part in item["loc"])
        lines.append(f"{path}: {_message(item)}")
    first = error.errors()[0]
    message = _message(first)
    expected = message.removeprefix("Input should be ")
    parts = {"expected": expected, "got": repr(first.get("input"))[:200]}
    if said := _SAID.search(message):
        parts = said.groupdict()
    return _response(problem(400, "the request cannot be understood", "; ".join(lines), **parts))


def _message(item: Mapping[str, Any]) -> str:
    if item["type"] == "json_invalid":
        # The place is that of the character; what the framework says it got is an empty object.
        return "expected JSON, got other bytes"
    return str(item["msg"]).removeprefix("Value error, ")


def handled_errors() -> tuple[type[Exception], ...]:
    """Return the classes that ``answer_problem`` handles."""
    return tuple(kind for kind, _, _ in _STATUS)


def _response(document: dict[str, Any]) -> JSONResponse:
    headers = {"Retry-After": "1"} if document["status"] == 503 else None  # noqa: PLR2004
    return JSONResponse(
        document,
        status_code=document["status"],
        media_type="application/problem+json",
        headers=headers,
    )
