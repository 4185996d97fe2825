"""Errors of the service.

``ServiceError``
    ``ConfigurationError``  a key of the configuration is wrong; names the path
        ``NoDataFolder``    a command was given a place where there is none
    ``NotFound``            there is no such deployment, inference, alarm or explanation
    ``Gone``                it was there and was deleted on purpose
    ``NotReady``            something must be configured or come first; names what
    ``OnHold``              a legal hold forbids a deletion; names the hold
    ``BadRequest``          a request to the API cannot be understood
    ``NotAcceptable``       no format that the caller accepts
"""

from pathlib import Path


class ServiceError(Exception):
    """Base class, so that one table maps every error of the service to a status."""

    def __init__(self, detail: str, *, expected: str = "", got: str = "", hint: str = "") -> None:
        """Keep the parts, so that the API can build a problem document."""
        super().__init__(detail)
        self.detail = detail
        self.expected = expected
        self.got = got
        self.hint = hint


class ConfigurationError(ServiceError, ValueError):
    """One or more keys are wrong; ``detail`` has one line for each, beginning with its path."""


class NoDataFolder(ConfigurationError):  # noqa: N818 - the name says it
    """There is no data folder; ``got`` is where it was looked for."""

    def __init__(self, place: Path) -> None:
        """Say where it was looked for, and what to name."""
        super().__init__(
            f"--data: expected a data folder, got {place}: there is none",
            expected="a data folder",
            got=str(place),
            hint="name the one of the service with --data or SIDELIGHT_DATA",
        )


class NotFound(ServiceError, LookupError):  # noqa: N818 - the name says it
    """There is no such thing; ``detail`` names it."""


class Gone(ServiceError, LookupError):  # noqa: N818 - the name says it
    """It was there and was deleted on purpose; ``detail`` says when and why."""


class NotReady(ServiceError, RuntimeError):  # noqa: N818 - the name says it
    """Something must be configured or must happen first; ``hint`` names it."""


class OnHold(ServiceError, PermissionError):  # noqa: N818 - the name says it
    """A legal hold forbids what was asked; ``detail`` names it."""


class BadRequest(ServiceError, ValueError):  # noqa: N818 - the name says it
    """A request cannot be understood; ``expected`` and ``got`` say why."""


class NotAcceptable(ServiceError, ValueError):  # noqa: N818 - the name says it
    """The caller accepts none of the formats there are; ``expected`` names them."""
