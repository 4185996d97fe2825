"""A query parameter that nothing reads is refused: a typo must not widen a query.

So is one that is given twice, of which only one would be read.
"""

from fastapi import FastAPI
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from sidelight.service._api_routes import operation_of, query_parameters
from sidelight.service._problems import answer_problem
from sidelight.service.errors import BadRequest


class ParametersMiddleware:
    """Answers 400 to unknown and to repeated query parameters.

    It hands on the answer's messages untouched. The framework's own kind of middleware ends a
    stream whose source failed as if that were all of it.

    Parameters
    ----------
    app : ASGI application
        What is behind it.
    api : FastAPI
        Knows the routes.

    """

    def __init__(self, app: ASGIApp, *, api: FastAPI) -> None:
        self._app = app
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        wrong = self._wrong(scope) if scope["type"] == "http" else None
        if wrong is None:
            await self._app(scope, receive, send)
            return
        answer = await answer_problem(Request(scope), wrong)
        await answer(scope, receive, send)

    def _wrong(self, scope: Scope) -> BadRequest | None:
        if not scope["query_string"]:
            return None
        template, _ = operation_of(self._api, scope)
        known = query_parameters(self._api, template, scope["method"])
        if known is None:
            return None
        given = [name for name, _ in QueryParams(scope["query_string"]).multi_items()]
        repeated = [name for name in known if given.count(name) > 1]
        if repeated:
            return BadRequest(
                f"query parameter {repeated[0]} given more than once", expected="one", got="several"
            )
        unknown = sorted(set(given) - known)
        if not unknown:
            return None
        return BadRequest(
            f"unknown query parameter {unknown[0]}",
            expected=", ".join(sorted(known)) or "no query parameters",
            got=unknown[0],
        )
