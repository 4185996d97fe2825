"""Every request to the API passes here: who asks, whether that is enough, and the access log."""

import logging
from typing import Any, Final

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, QueryParams
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sidelight.service._access import BY_DEPLOYMENT, NEEDED, WHOLE, Access, Caller
from sidelight.service._access_log import AccessLog
from sidelight.service._api_routes import operation_of
from sidelight.service._names import stored_name
from sidelight.service._problems import problem
from sidelight.service._tokens import Role

log = logging.getLogger(__name__)

REASON_HEADER: Final = "X-Sidelight-Reason"
_REASON_CHARS: Final = 500
_UNFORESEEN: Final = 500
# Scraped all day by machines, and without a payload in them.
_NOT_LOGGED: Final = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json", "/"})


class AccessMiddleware:
    """Refuses who may not ask, and writes down who asked, before an answer leaves.

    Parameters
    ----------
    app : ASGI application
        What is behind it.
    api : FastAPI
        Knows the routes.
    access : Access
        Knows the callers.
    access_log : AccessLog
        Gets an entry for each query, export, explanation and change.

    """

    def __init__(
        self, app: ASGIApp, *, api: FastAPI, access: Access, access_log: AccessLog
    ) -> None:
        self._app = app
        self._api = api
        self._access = access
        self._log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route, values = operation_of(self._api, scope)
        needed = self._needed(scope["method"], route)
        if needed is None:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        caller = self._access.caller_of(headers.get("authorization"))
        if caller is None:
            await _unauthorized()(scope, receive, send)
            return
        # An address can name one parameter twice; what is written down and looked at is what the
        # handlers read, the last.
        parameters = {**QueryParams(scope["query_string"]), **values}
        entry: dict[str, Any] = {
            "caller": caller.name,
            "method": scope["method"],
            "route": route or scope["path"],
            "parameters": parameters,
            "reason": headers.get(REASON_HEADER, "")[:_REASON_CHARS],
        }
        scope.setdefault("state", {}).update(caller=caller, access=entry)
        refusal = _refusal(caller, needed, route, parameters)
        answer = self._app if refusal is None else refusal
        if route in _NOT_LOGGED:
            await answer(scope, receive, send)
            return
        logged = _Logged(self._log, entry, send, scope, receive)
        try:
            await answer(scope, receive, logged)
        except Exception:
            await logged.failed()
            raise

    def _needed(self, method: str, route: str) -> Role | None:
        if route == "/metrics" and self._access.is_metrics_open:
            return None
        return NEEDED.get(("GET" if method == "HEAD" else method, route), "admin")


class _Logged:
    """Writes the entry when the answer begins, and answers 503 when it cannot be written."""

    def __init__(
        self,
        access_log: AccessLog,
        entry: dict[str, Any],
        send: Send,
        scope: Scope,
        receive: Receive,
    ) -> None:
        self._log = access_log
        self._entry = entry
        self._send = send
        self._scope = scope
        self._receive = receive
        self._is_begun = False
        self._is_withheld = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._write(message["status"])
        if not self._is_withheld:
            await self._send(message)

    async def failed(self) -> None:
        """Write down what nobody foresaw; who is in front answers it with 500."""
        if not self._is_begun:
            await self._write(_UNFORESEEN)

    async def _write(self, status: int) -> None:
        self._is_begun = True
        self._entry["status"] = status
        try:
            await run_in_threadpool(self._log.append, self._entry)
        except OSError:
            log.exception("the access log cannot be written: the answer is withheld")
            self._is_withheld = True
            refusal = problem(
                503,
                "the access log cannot be written",
                "an answer that cannot be logged is not given",
                hint="make room on the disk of the data folder",
            )
            await _response(refusal, {"Retry-After": "5"})(self._scope, self._receive, self._send)


def caller_of(request: Request) -> Caller:
    """Return who makes a request."""
    caller: Caller = request.state.caller
    return caller


def note_access(request: Request, **facts: object) -> None:
    """Add what only a body says to the entry of the access log."""
    request.state.access["parameters"].update(facts)


def _refusal(
    caller: Caller, needed: Role, route: str, parameters: dict[str, str]
) -> ASGIApp | None:
    if needed not in caller.roles:
        return _forbidden(f"this takes the role {needed}", expected=f"a token with role {needed}")
    if caller.namespaces is None:
        return None
    if route in WHOLE:
        return _forbidden(
            "this shows every namespace", expected="a token that is not limited to namespaces"
        )
    namespace = parameters.get("namespace")
    deployment = parameters.get("deployment")
    if namespace is not None:
        deployment = f"{namespace}/{parameters.get('name', '')}"
    if deployment is None and route and route not in BY_DEPLOYMENT:
        return None  # the handler looks at what it found
    if deployment is not None and caller.may_see(stored_name(deployment)):
        return None
    return _forbidden(
        "the token is limited to namespaces",
        expected="deployment=NAMESPACE/NAME with one of " + ", ".join(sorted(caller.namespaces)),
    )


def _unauthorized() -> ASGIApp:
    document = problem(
        401,
        "a token is needed",
        "the request has no valid token",
        expected="Authorization: Bearer TOKEN, neither expired nor revoked",
        hint="sidelight token create --role read",
    )
    challenge = 'Bearer realm="sidelight", Basic realm="sidelight", charset="UTF-8"'
    return _response(document, {"WWW-Authenticate": challenge})


def _forbidden(detail: str, *, expected: str) -> ASGIApp:
    return _response(problem(403, "the token does not allow this", detail, expected=expected))


def _response(document: dict[str, Any], headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(
        document,
        status_code=document["status"],
        media_type="application/problem+json",
        headers=headers,
    )
