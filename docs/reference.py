"""Writes docs/reference.md from the code; with ``--check`` only says whether it is up to date."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import typer
from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sidelight.logger import Accounting, AddedTime, Connections, capture_metrics
from sidelight.service._api import ROUTERS
from sidelight.service._cli import app
from sidelight.service._metrics import METRICS
from sidelight.service._proxy_metrics import ProxyState, proxy_metrics
from sidelight.service._proxy_settings import ProxyFile
from sidelight.service._quantities import or_seconds, size_bytes

PAGE = Path(__file__).with_name("reference.md")


def lines() -> Iterator[str]:
    """Yield the page."""
    yield "# Reference"
    yield ""
    yield "Made from the code by `docs/reference.py`; `make docs` checks that it is up to date."
    yield ""
    yield from _commands()
    yield from _door()
    yield from _routes()
    yield from _metrics()
    yield from _settings()


def _commands() -> Iterator[str]:
    yield "## Commands"
    yield ""
    group: Any = typer.main.get_command(app)
    for name, command in sorted(group.commands.items()):
        yield from _command(f"sidelight {name}", command)


def _command(name: str, command: Any) -> Iterator[str]:
    yield f"### `{name}`"
    yield ""
    yield command.help
    yield ""
    inner = getattr(command, "commands", None)
    if inner is not None:
        for part, below in sorted(inner.items()):
            yield from _command(f"{name} {part}", below)
        return
    yield "| option | meaning |"
    yield "|---|---|"
    for option in command.params:
        flags = ", ".join(f"`{flag}`" for flag in option.opts)
        default = option.default
        shown = "" if default in {None, False} else default
        if isinstance(option.show_default, str):
            shown = option.show_default
        suffix = f" Default: `{shown}`." if shown != "" else ""
        yield f"| {flags} | {option.help}{suffix} |"
    yield ""


_DOOR = {
    "`POST /`, `POST /events`": "CloudEvents, binary, structured or batched; 200 once durable",
    "`POST /dead-letter`": "the same for a broker's dead letters, marked",
    "`POST /consumer/kserve/v2`": "payload records of ModelMesh and TrustyAI",
    "`OPTIONS` on these": "the webhook handshake",
}


def _door() -> Iterator[str]:
    yield "## Routes of the door"
    yield ""
    yield "| route | what |"
    yield "|---|---|"
    for route, text in _DOOR.items():
        yield f"| {route} | {text} |"
    yield ""


def _routes() -> Iterator[str]:
    api = FastAPI()
    for router in ROUTERS:
        api.include_router(router)
    yield "## Routes of the API"
    yield ""
    yield "`HEAD` is answered wherever `GET` is: the same without the body."
    yield ""
    yield "| route | query parameters | what |"
    yield "|---|---|---|"
    for path, operations in sorted(api.openapi()["paths"].items()):
        for method, operation in operations.items():
            names = [
                item["name"] for item in operation.get("parameters", []) if item["in"] == "query"
            ]
            text = " ".join(operation.get("description", "").split())
            yield f"| `{method.upper()} {path}` | {', '.join(names)} | {text} |"
    yield ""


def _metrics() -> Iterator[str]:
    yield "## Metrics of `serve`"
    yield ""
    yield "| metric | kind | labels | what |"
    yield "|---|---|---|---|"
    for name, spec in METRICS.items():
        yield f"| `sidelight_{name}` | {spec.kind} | {', '.join(spec.labels)} | {spec.help} |"
    yield ""
    yield "## Metrics of `proxy`"
    yield ""
    yield "| metric | kind | what |"
    yield "|---|---|---|"
    labels = {"namespace": "ns", "deployment": "name"}
    state = ProxyState(connections=Connections(), upstream=None)
    accounts = {"sink": Accounting().snapshot()}
    text = (
        capture_metrics(accounts, AddedTime(), **labels) + proxy_metrics(state, **labels)
    ).decode()
    helps = dict(line[7:].split(" ", 1) for line in text.splitlines() if line.startswith("# HELP "))
    kinds = dict(line[7:].split(" ", 1) for line in text.splitlines() if line.startswith("# TYPE "))
    for name, kind in kinds.items():
        yield f"| `{name}` | {kind} | {helps[name]} |"
    yield ""


def _settings() -> Iterator[str]:
    yield "## Settings"
    yield ""
    yield "Keys of the YAML file. The environment variable of a key is `SIDELIGHT_` and the key in"
    yield "capitals, with `__` between levels."
    yield ""
    yield "| key | default | meaning |"
    yield "|---|---|---|"
    yield from _keys(ProxyFile, "")
    yield ""


def _keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        inner = _model_of(field.annotation)
        if inner is None:
            yield f"| `{key}` | {_default(field)} | {field.description} |"
        else:
            many = get_origin(field.annotation) is tuple
            yield from _keys(inner, f"{key}[]." if many else f"{key}.")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None or value in ("", {}):
        return ""
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    readers = {getattr(item, "func", None) for item in field.metadata}
    if size_bytes in readers:
        return f"`{_size(value)}`"
    if or_seconds in readers:
        return f"`{value:g}s`"
    return f"`{value}`"


def _size(n_bytes: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if n_bytes and n_bytes % unit == 0:
            return f"{n_bytes // unit}{name}"
    return str(n_bytes)


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) is tuple or isinstance(annotation, UnionType):
        return next(filter(None, map(_model_of, get_args(annotation))), None)
    return None


def main() -> int:
    """Write the page, or with ``--check`` compare it."""
    page = "\n".join(lines()).rstrip() + "\n"
    if "--check" not in sys.argv:
        PAGE.write_text(page)
        return 0
    if PAGE.exists() and PAGE.read_text() == page:
        sys.stdout.write("docs/reference.md is up to date\n")
        return 0
    sys.stdout.write("docs/reference.md is not what the code says: run python docs/reference.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
