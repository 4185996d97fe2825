"""The HTTP API of ``serve``: one FastAPI application over the results and the lake."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from sidelight.service import (
    _api_deployments,
    _api_detection,
    _api_erasures,
    _api_explanations,
    _api_export,
    _api_feedback,
    _api_inferences,
    _api_operation,
    _api_raw,
)
from sidelight.service._access import Access
from sidelight.service._access_log import AccessLog
from sidelight.service._api_access import AccessMiddleware
from sidelight.service._api_head import HeadMiddleware
from sidelight.service._api_parameters import ParametersMiddleware
from sidelight.service._context import Context
from sidelight.service._problems import (
    answer_http,
    answer_problem,
    answer_unforeseen,
    answer_validation,
    handled_errors,
)
from sidelight.service._version import version

ROUTERS = (
    _api_deployments.router,
    # Before the ids, which would take its name for one.
    _api_export.router,
    _api_inferences.router,
    _api_raw.router,
    _api_feedback.router,
    _api_detection.router,
    _api_erasures.router,
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
    app.add_exception_handler(Exception, answer_unforeseen)
    app.add_middleware(ParametersMiddleware, api=app)
    app.add_middleware(HeadMiddleware)
    app.add_middleware(
        AccessMiddleware,
        api=app,
        access=Access(context.settings),
        access_log=AccessLog(context.settings.data),
    )
    return app
