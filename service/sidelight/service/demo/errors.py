"""Errors raised by the demo's material.

``DemoError``
    ``DemoDataMissing``  the package with the flights is not installed, or its files are not there
    ``ModelNotReady``    the process of the demo's model ended or stayed silent before it was ready
    ``InferError``       a V2 request that the demo's model cannot answer
"""


class DemoError(Exception):
    """Base class, so that a caller can catch everything from this package."""


class DemoDataMissing(DemoError, LookupError):  # noqa: N818 - the name says it
    """The flights of 2013 are not on this machine."""

    def __init__(self, what: str) -> None:
        """Say what was looked for and how to get it."""
        super().__init__(
            f"the flights of 2013: expected {what}, got nothing; "
            'install the demo with: pip install "sidelight[demo]"'
        )
        self.what = what


class ModelNotReady(DemoError, RuntimeError):  # noqa: N818 - the name says it
    """The demo's model did not start."""

    def __init__(self, got: str) -> None:
        """Carry what the process left behind."""
        super().__init__(f"the demo's model: expected a line with its port, got {got}")
        self.got = got


class InferError(DemoError, ValueError):
    """What a V2 request holds is not what the model takes."""

    def __init__(self, what: str, *, expected: str, got: object, status: int = 400) -> None:
        """Keep the parts, so that the server can build the answer."""
        super().__init__(f"{what}: expected {expected}, got {got}")
        self.what = what
        self.expected = expected
        self.got = got
        self.status = status
