"""Errors raised by the detectors.

``DetectorError``
    ``ParameterError``  a detector was configured with an impossible value
    ``SampleError``     the data handed to a detector cannot be used
    ``SnapshotError``   stored state cannot be read back
"""


class DetectorError(Exception):
    """Base class, so that a caller can catch everything from this package."""


class ParameterError(DetectorError, ValueError):
    """A parameter is outside its allowed range."""

    def __init__(self, name: str, value: object, expected: str) -> None:
        """Keep the parts, so that the service can build its own message."""
        super().__init__(f"{name} must be {expected}, got {value!r}")
        self.name = name
        self.value = value
        self.expected = expected


class SampleError(DetectorError, ValueError):
    """A sample has the wrong shape, or too few rows to learn from."""

    def __init__(self, what: str, *, expected: str, got: object) -> None:
        """Keep the parts, so that the service can build its own message."""
        super().__init__(f"{what}: expected {expected}, got {got}")
        self.what = what
        self.expected = expected
        self.got = got


class SnapshotError(DetectorError, ValueError):
    """Bytes are no snapshot of this detector, or one that does not belong to this reference."""

    def __init__(self, what: str, *, expected: str, got: object) -> None:
        """Keep the parts, so that the service can build its own message."""
        super().__init__(
            f"{what}: expected {expected}, got {got}; start the deployment's detection afresh"
        )
        self.what = what
        self.expected = expected
        self.got = got
