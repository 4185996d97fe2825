"""What is wrong with a configuration, one line for each key, without showing a secret."""

import difflib
import re
from typing import Any, Final

from pydantic import BaseModel, ValidationError

# What stands under these may be a secret, there by mistake or not: it is never shown.
_CONFIDENTIAL: Final = frozenset(
    {
        *("headers", "headers_from", "config", "config_from", "key_file", "key_env"),
        *("access_key_from", "secret_key_from", "session_token_from", "admin_token_from"),
        *("password_from", "api_key_from"),
    }
)
_CREDENTIALS: Final = re.compile(r"//\S*@")


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Put each wrong key on a line of its own: path, what was expected, what was got."""
    return "\n".join(_line(item, model) for item in error.errors(include_url=False))


def _line(item: Any, model: type[BaseModel]) -> str:
    path = "".join(map(_step, item["loc"])).removeprefix(".")
    if item["type"] == "extra_forbidden":
        keys = _keys(model, item["loc"][:-1])
        near = difflib.get_close_matches(str(item["loc"][-1]), keys, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(keys)}"
        return f"{path}: unknown key; {hint}"
    message = item["msg"].removeprefix("Value error, ")
    got = "" if item["type"] == "missing" or "got" in message else _got(item)
    return f"{path}: {_CREDENTIALS.sub('//...@', message)}{got}"


def _step(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{part}" if part.isprintable() else f".{part!r}"


def _got(item: Any) -> str:
    value = item["input"]
    if not _CONFIDENTIAL.isdisjoint(item["loc"]):
        return ""
    if not isinstance(value, str | int | float):
        # A whole section may hold something that is not to be shown.
        return f", got {type(value).__name__}"
    return f", got {_CREDENTIALS.sub('//...@', repr(value))}"


def _keys(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    for part in location:
        # A number counts a list, and the key of a mapping is a name that somebody chose.
        if isinstance(part, str) and part in model.model_fields:
            model = _inner(model.model_fields[part].annotation)
    return sorted(field.alias or name for name, field in model.model_fields.items())


def _inner(annotation: Any) -> type[BaseModel]:
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return BaseModel
