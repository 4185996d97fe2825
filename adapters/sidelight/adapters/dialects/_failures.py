"""Answers that say that there is no prediction: one row without outputs, the text beside it."""

from collections.abc import Mapping
from typing import Any, Final

from sidelight.adapters.dialects._half import Half, Layout, Side

FAILURE: Final = "error"
"""The protocol of such an answer."""

_MAX_CHARS: Final = 1000
_KEYS: Final = ("error", "error_code", "detail")
_LAYOUT: Final = Layout(FAILURE)


class Failures:
    """Errors as servers write them: ``error``, MLflow's ``error_code``, FastAPI's ``detail``."""

    def claims(self, body: dict[str, Any], side: Side) -> bool:
        """Whether an answer says nothing but an error."""
        return side == "response" and any(body.get(key) for key in _KEYS)

    def decode(self, body: dict[str, Any], side: Side) -> Half:  # noqa: ARG002 - the interface
        """Read the message."""
        said = next(body[key] for key in _KEYS if body.get(key))
        if type(said) is dict:
            said = said.get("message") or said
        if message := body.get("message"):
            said = f"{said}: {message}"
        return failed(said)


def failed(said: Any, facts: Mapping[str, Any] | None = None) -> Half:
    """Return a failure with the beginning of what was said of it."""
    return Half(_LAYOUT, 1, (), {**(facts or {}), "error": str(said)[:_MAX_CHARS]})
