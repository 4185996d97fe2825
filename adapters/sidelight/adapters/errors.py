"""Errors raised by the adapters.

``AdapterError``
    ``LakeError``       a file of the lake cannot be written or read
    ``StoreError``      a store of inferences cannot answer now
    ``QueryError``      a question to the store cannot be understood
        ``WhereError``      its ``where`` expression cannot; says where
    ``ImportFileError``     a file of another platform's logger is not what it should be
    ``SinkError``       a sink for captured events cannot be used as it is configured
    ``MissingExtraError``   a package is not installed; says which extra brings it
"""


class AdapterError(Exception):
    """Base class, so that a caller can catch everything from this package."""


class LakeError(AdapterError, OSError):
    """A file of the lake cannot be written or read.

    Attributes
    ----------
    written : tuple of str
        Files that the same work had written before; no entry names them.

    """

    written: tuple[str, ...] = ()


class StoreError(AdapterError, OSError):
    """A store of inferences cannot answer now: it is down, slow, or says no."""


class QueryError(AdapterError, ValueError):
    """A question to the store cannot be understood; carries what was expected and what was got."""

    def __init__(self, what: str, *, expected: str, got: str) -> None:
        """Keep the parts, so that the API can build a problem document."""
        super().__init__(f"{what}: expected {expected}, got {got}")
        self.what = what
        self.expected = expected
        self.got = got


class WhereError(QueryError):
    """A ``where`` expression has a wrong syntax, an unknown column or a value of another type.

    Attributes
    ----------
    text : str
        The expression as it was given.
    position : int
        Index of the first character that does not fit, from 0; the length of the text at its end.

    """

    def __init__(self, text: str, position: int, *, expected: str, got: str) -> None:
        """Keep the parts and point at the place."""
        super().__init__(f"where, at character {position + 1}", expected=expected, got=got)
        self.text = text
        self.position = position

    def __str__(self) -> str:
        # Odd characters become one visible character each, so that the caret stands right.
        line = "".join(character if character.isprintable() else "?" for character in self.text)
        return f"{self.args[0]}\n{line}\n{' ' * self.position}^"


class SinkError(AdapterError, ValueError):
    """A sink for captured events cannot be used as it is configured."""


class MissingExtraError(AdapterError, ImportError):
    """A package of an extra is not installed.

    Attributes
    ----------
    package, extra : str

    """

    def __init__(self, what: str, *, package: str, extra: str) -> None:
        """Keep the parts and say how to install it."""
        super().__init__(
            f"{what}: expected the package {package}, got none; pip install 'sidelight[{extra}]'"
        )
        self.package = package
        self.extra = extra


class ImportFileError(AdapterError, ValueError):
    """A file that another platform's logger wrote cannot be read.

    Attributes
    ----------
    what, expected, got : str
        Which part of it is wrong, and how.

    """

    def __init__(self, what: str, *, expected: str, got: str) -> None:
        """Keep the parts, so that a caller can name the file beside them."""
        super().__init__(f"{what}: expected {expected}, got {got}; was it written by that logger?")
        self.what = what
        self.expected = expected
        self.got = got
