"""Errors raised by the values.

``PayloadError``
    ``SchemaError``  a schema contradicts itself or cannot be read
    ``BatchError``   a block of rows does not have the columns that a batch must have
"""


class PayloadError(Exception):
    """Base class, so that a caller can catch everything from this package."""


class SchemaError(PayloadError, ValueError):
    """A schema has an unknown kind or role, or names a column twice."""

    def __init__(self, path: str, expected: str, got: object) -> None:
        """Keep the parts, so that an adapter can build its own message."""
        super().__init__(f"{path}: expected {expected}, got {got!r}")
        self.path = path
        self.expected = expected
        self.got = got


class BatchError(PayloadError, ValueError):
    """A record batch lacks a column that every batch has, or has it with another type."""

    def __init__(self, column: str, expected: str, got: object) -> None:
        """Keep the parts, so that an adapter can build its own message."""
        super().__init__(f"column {column}: expected {expected}, got {got}")
        self.column = column
        self.expected = expected
        self.got = got
