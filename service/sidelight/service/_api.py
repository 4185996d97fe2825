"""The HTTP API of ``serve``: one FastAPI application over the results and the lake."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from sidelight.service import (
    _api_deployments,
    _api_detection,
    _api_explanations,
    _api_feedback,
    _api_inferences,
    _api_operation,
)
from sidelight.service._access import Access
from sidelight.service._access_log import AccessLog
from sidelight.service._api_access import AccessMiddleware
from sidelight.service._api_routes import operation_of, query_parameters
from sidelight.service._context import Context
from sidelight.service._problems import (
    answer_http,
    answer_problem,
    answer_validation,
    handled_errors,
)
from sidelight.service._version import version
from sidelight.service.errors import BadRequest

ROUTERS = (
    _api_deployments.router,
    _api_inferences.router,
    _api_feedback.router,
    _api_detection.router,
    _api_explanations.router,
    _api_operation.router,
)


def create_app(context: Context) -> FastAPI:
    """Return the application over one data folder."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await context.close()

    app = FastAPI(
        title="Sidelight",
        version=version(),
        summary="What deployed models are asked and answer; drift, outliers, explanations.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.context = context
    for router in ROUTERS:
        app.include_router(router)
    for kind in handled_errors():
        app.add_exception_handler(kind, answer_problem)
    app.add_exception_handler(RequestValidationError, answer_validation)
    app.add_exception_handler(HTTPException, answer_http)
    app.middleware("http")(_refuse_unknown_parameters)
    app.add_middleware(
        AccessMiddleware,
        api=app,
        access=Access(context.settings),
        access_log=AccessLog(context.settings.data),
    )
    return app


async def _refuse_unknown_parameters(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    """Answer 400 to a query parameter that nothing reads: a typo must not widen a query."""
    if not request.url.query:
        return await call_next(request)
    template, _ = operation_of(request.app, request.scope)
    known = query_parameters(request.app, template, request.method)
    unknown = sorted(set(request.query_params) - known) if known is not None else []
    if unknown:
        error = BadRequest(
            f"unknown query parameter {unknown[0]}",
            expected=", ".join(sorted(known or ())) or "no query parameters",
            got=unknown[0],
        )
        return await answer_problem(request, error)
    return await call_next(request)
