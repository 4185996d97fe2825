"""Settings of what is taken out of events before anything leaves the pod."""

from pathlib import Path
from typing import Literal, Self

from pydantic import (
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveFloat,
    model_validator,
)

from sidelight.logger import RedactionRule
from sidelight.service._settings_section import Section


class RedactionRuleSettings(Section):
    """One thing that is taken out or made coarse."""

    column: str | None = None
    """Name of a column, or a pattern; exactly one of these four is given."""

    tensor: str | None = None
    """Name of a tensor, or a pattern."""

    path: str | None = None
    """JSON path, as ``$.instances[*].name`` or ``$..name``."""

    header: str | None = None
    """Name of a header of an allow-list."""

    on: Literal["request", "response", "both"] = "both"
    """Which half it is in."""

    deployment: str = "*"
    """``namespace/name``, or a pattern."""

    action: Literal["drop", "mask", "hmac", "bucket", "round", "truncate"]
    """What is done to it."""

    text: str | None = None
    """For ``mask``: what stands in its place; null when absent."""

    edges: tuple[FiniteFloat, ...] = ()
    """For ``bucket``: ascending bounds; a number becomes the lower one of its two."""

    step: PositiveFloat | None = None
    """For ``round``: numbers become multiples of it."""

    digits: int | None = None
    """For ``round``: digits behind the point that stay; negative ones are before it."""

    length: NonNegativeInt | None = None
    """For ``truncate``: characters that stay."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        self.rule()
        return self

    def rule(self) -> RedactionRule:
        """Return the rule; raise ``ValueError`` when it says nothing or too much."""
        return RedactionRule(**self.model_dump())


class RedactionSettings(Section):
    """What is taken out of events before they are queued, spooled or sent."""

    key_file: Path | None = Field(default=None, repr=False)
    """File of the key of ``hmac`` and of digests of what is withheld, at least 16 bytes."""

    key_env: str | None = Field(default=None, repr=False)
    """Environment variable that holds the key."""

    spelling: Literal["hex", "base64url"] = "hex"
    """How ``hmac`` is written: 64 or 43 characters."""

    rules: tuple[RedactionRuleSettings, ...] = ()
    """Each is applied to what the one before left."""

    @model_validator(mode="after")
    def _has_its_key(self) -> Self:
        if self.key_file is not None and self.key_env is not None:
            raise ValueError("expected one of key_file and key_env, got both")
        needs_key = any(rule.action == "hmac" for rule in self.rules)
        if needs_key and self.key_file is None and self.key_env is None:
            raise ValueError("expected key_file or key_env for the action hmac, got neither")
        return self
