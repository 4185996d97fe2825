"""Which operation of the OpenAPI document a request asks for."""

import re
from functools import cache
from typing import Any
from urllib.parse import unquote

from fastapi import FastAPI
from starlette.types import Scope

# Not in the document itself.
_BESIDE = ("/", "/openapi.json")


def operation_of(app: FastAPI, scope: Scope) -> tuple[str, dict[str, str]]:
    """Return the path template that answers a request, and what stands for its placeholders.

    The path is matched as it was sent: an encoded slash is no separator. Empty for a path that
    nothing answers.
    """
    path = (scope.get("raw_path") or scope["path"].encode()).partition(b"?")[0].decode("latin-1")
    if path in _BESIDE:
        return path, {}
    # A literal path wins over one with a placeholder, as it does in the router.
    for template in sorted(app.openapi()["paths"], key=lambda item: item.count("{")):
        if match := _pattern(template).fullmatch(path):
            values = match.groupdict()
            return template, {name: unquote(value) for name, value in values.items()}
    return "", {}


def query_parameters(app: FastAPI, template: str, method: str) -> set[str] | None:
    """Return the names of the query parameters of an operation; None when there is none."""
    operations: dict[str, Any] = app.openapi()["paths"].get(template, {})
    if method.lower() not in operations:
        return None
    parameters = operations[method.lower()].get("parameters", [])
    return {item["name"] for item in parameters if item["in"] == "query"}


def methods_of(app: FastAPI, scope: Scope) -> list[str]:
    """Return the methods that are answered at the path of a request, in order."""
    template, _ = operation_of(app, scope)
    # The door answers the others of the root itself.
    beside = ("GET", "OPTIONS", "POST") if template == "/" else ("GET",)
    methods = {method.upper() for method in app.openapi()["paths"].get(template, beside)}
    return sorted({*methods, "HEAD"} if "GET" in methods else methods)


@cache
def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{([^}]+)\}", template)
    text = re.escape(parts[0])
    for name, literal in zip(parts[1::2], parts[2::2], strict=True):
        text += f"(?P<{name}>[^/]+){re.escape(literal)}"
    return re.compile(text)
