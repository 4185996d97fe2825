"""Capture around a predict function, wherever it is called."""

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, TypeVar, cast
from urllib.parse import quote

from sidelight.logger._captured_call import CallForm, CapturedCall
from sidelight.logger._connections import Limits
from sidelight.logger._in_process import SinkOption, emitter_of
from sidelight.logger._tensor_json import TensorWriter

_Function = TypeVar("_Function", bound=Callable[..., Any])

_CAPTURE_LIMIT: Final = Limits().capture_limit
_OWNERS: Final = ("self", "cls")
_GATHERING: Final = {
    inspect.Parameter.VAR_POSITIONAL: "positional",
    inspect.Parameter.VAR_KEYWORD: "keywords",
}


def captured(
    *,
    sink: SinkOption,
    deployment: str | None = None,
    spool: Path | str | None = None,
    model: str | None = None,
    version: str = "",
    arguments: Sequence[str] | None = None,
    feature_names: Sequence[str] = (),
    request_id: str | ContextVar[str] | ContextVar[str | None] = "",
) -> Callable[[_Function], _Function]:
    """Hand what a function is called with and returns to an emitter.

    Arguments and result are written as tensors of the Open Inference Protocol before they can
    change; see the guide for what becomes of which type. What cannot be written is left out and
    counted. The function, its result and its errors are as without it. Functions, methods,
    coroutines, and generators of both kinds are known by themselves.

    Parameters
    ----------
    sink : str, callable or ThreadedEmitter
        The address of a collector or broker; or makes a sink; or an emitter to share.
    deployment : str, optional
        ``namespace/name``; otherwise the emitter's, or ``default`` and the name of the model.
    spool : Path or str, optional
        Folder for what the sink does not take; shared by the processes of a host.
    model : str, optional
        Name of the model; the deployment's or the function's by default.
    version : str, default ""
        Of the model.
    arguments : sequence of str, optional
        Names of those that are captured; all but ``self`` and ``cls`` by default.
    feature_names : sequence of str, optional
        Names of the columns of an argument that is an array with as many columns; a list with as
        many values is one row then.
    request_id : str or ContextVar, default ""
        Name of the argument that holds the caller's id, or the variable that does.

    Returns
    -------
    callable
        The decorator.

    Raises
    ------
    ValueError
        When an option cannot be used.
    TypeError
        When what is decorated cannot be called.

    """
    emitter = emitter_of(sink, deployment=deployment, spool=spool)

    def decorate(function: _Function) -> _Function:
        if not callable(function):
            raise TypeError(
                f"captured: expected a function, got a {type(function).__name__}; staticmethod, "
                "classmethod and property stand above it"
            )
        name = getattr(function, "__qualname__", type(function).__name__)
        model_name = model or (deployment or "").partition("/")[2] or name.rpartition(".")[2]
        path = f"/v2/models/{quote(model_name, safe='')}"
        if version:
            path += f"/versions/{quote(version, safe='')}"
        form = CallForm(
            emitter=emitter,
            name=name,
            target=f"{path}/infer".encode(),
            bind=_binder(function, arguments, request_id if isinstance(request_id, str) else ""),
            writer=TensorWriter(column_names=feature_names, max_bytes=_CAPTURE_LIMIT),
            result_writer=TensorWriter(max_bytes=_CAPTURE_LIMIT),
            request_id=request_id,
            limit=_CAPTURE_LIMIT,
        )
        return cast("_Function", _wrapped(function, form))

    return decorate


def _wrapped(function: Callable[..., Any], form: CallForm) -> Callable[..., Any]:
    called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004 - an object that can be called
    for is_kind, wrap in _KINDS:
        if is_kind(function) or is_kind(called):
            return wrap(function, form)
    return _plain(function, form)


def _plain(function: Callable[..., Any], form: CallForm) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        seen = CapturedCall(form, args, kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            seen.fail(error)
            raise
        seen.end(result)
        return result

    return call


def _coroutine(
    function: Callable[..., Awaitable[Any]], form: CallForm
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        seen = CapturedCall(form, args, kwargs)
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            seen.fail(error)
            raise
        seen.end(result)
        return result

    return call


def _generator(
    function: Callable[..., Generator[Any, Any, Any]], form: CallForm
) -> Callable[..., Generator[Any, Any, Any]]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        seen = CapturedCall(form, args, kwargs)
        inner = function(*args, **kwargs)
        try:
            # As ``yield from`` does it (PEP 380), with a look at what passes.
            item = next(inner)
            while True:
                seen.add(item)
                try:
                    given = yield item
                except GeneratorExit:
                    inner.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - it is the generator's
                    item = inner.throw(error)
                else:
                    item = inner.send(given)
        except StopIteration as stop:
            seen.end_yielded()
            return stop.value
        except BaseException as error:
            seen.fail(error)
            raise

    return call


def _async_generator(
    function: Callable[..., AsyncGenerator[Any, Any]], form: CallForm
) -> Callable[..., AsyncGenerator[Any, Any]]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        seen = CapturedCall(form, args, kwargs)
        inner = function(*args, **kwargs)
        try:
            item = await anext(inner)
            while True:
                seen.add(item)
                try:
                    given = yield item
                except GeneratorExit:
                    await inner.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 - it is the generator's
                    item = await inner.athrow(error)
                else:
                    item = await inner.asend(given)
        except StopAsyncIteration:
            seen.end_yielded()
        except BaseException as error:
            seen.fail(error)
            raise

    return call


_KINDS: Final[tuple[tuple[Callable[[Any], bool], Callable[..., Callable[..., Any]]], ...]] = (
    (inspect.iscoroutinefunction, _coroutine),
    (inspect.isgeneratorfunction, _generator),
    (inspect.isasyncgenfunction, _async_generator),
)


def _binder(
    function: Callable[..., Any], wanted: Sequence[str] | None, id_name: str
) -> Callable[[tuple[Any, ...], Mapping[str, Any]], dict[str, Any]]:
    """Return what gives arguments their names; ``Signature.bind`` takes longer than many models."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # written in C
        parameters = []
    n_owners = int(bool(parameters) and parameters[0].name in _OWNERS)
    named = [one for one in parameters if one.kind not in _GATHERING]
    positional = [one.name for one in named if one.kind is not inspect.Parameter.KEYWORD_ONLY]
    defaults = {
        one.name: one.default
        for one in named[n_owners:]
        if one.default is not inspect.Parameter.empty and one.default is not None
    }
    _check_names([*(wanted or ()), *([id_name] if id_name else [])], function, parameters)
    chosen = None if wanted is None else {*wanted, id_name}

    def bind(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        given = dict(zip(positional, args, strict=False))
        for name in positional[:n_owners]:
            given.pop(name, None)
        for place, value in enumerate(args[len(positional) :]):
            given[f"arg{place}"] = value
        given = {**given, **kwargs}
        for name, value in defaults.items():
            given.setdefault(name, value)
        if chosen is None:
            return given
        return {name: value for name, value in given.items() if name in chosen}

    return bind


def _check_names(
    names: Sequence[str], function: Callable[..., Any], parameters: Sequence[inspect.Parameter]
) -> None:
    known = {one.name for one in parameters}
    takes_any = not parameters or any(
        one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters
    )
    for name in names:
        if name not in known and not takes_any:
            raise ValueError(
                f"captured: expected names of arguments of {function!r}, got {name!r}; it has "
                f"{', '.join(sorted(known)) or 'none'}"
            )
