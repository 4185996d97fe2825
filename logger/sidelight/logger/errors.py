"""Errors raised by capture and collection.

``LoggerError``
    ``EnvelopeError``   what arrived is no CloudEvent; it is refused or quarantined
    ``TensorError``     bytes that are not the tensors that they are said to be
    ``RedactionError``  a payload that rules of redaction apply to cannot be read
    ``JournalError``    the journal cannot do what was asked
        ``JournalFull``     no room on the disk; nothing was written
        ``JournalDamaged``  stored bytes are not what was written
        ``FolderInUse``     another process holds the data folder
        ``FolderTooNew``    the data folder has a newer format version
        ``SigningKeyError`` the key of the checkpoints cannot be had
        ``SealingKeyError`` the key of sealed events cannot be had
    ``SpoolError``      the spool of the proxy cannot do what was asked
"""


class LoggerError(Exception):
    """Base class, so that a caller can catch everything from this package."""


class EnvelopeError(LoggerError, ValueError):
    """What arrived is no CloudEvent; carries what was expected and what was got."""

    def __init__(self, what: str, *, expected: str, got: str) -> None:
        """Keep the parts, so that the door can build a problem document."""
        super().__init__(f"{what}: expected {expected}, got {got}")
        self.what = what
        self.expected = expected
        self.got = got


class TensorError(LoggerError, ValueError):
    """Bytes are not the tensors that they are said to be; no value is in the message."""

    def __init__(self, what: str, *, expected: str, got: str) -> None:
        """Keep the parts."""
        super().__init__(f"{what}: expected {expected}, got {got}")
        self.what = what
        self.expected = expected
        self.got = got


class RedactionError(LoggerError, ValueError):
    """A payload that rules of redaction apply to cannot be read; no value is in the message.

    ``reason`` is one word for an attribute or a counter.
    """

    def __init__(self, reason: str) -> None:
        """Keep the reason."""
        super().__init__(f"payload: expected one that can be redacted, got one that is {reason}")
        self.reason = reason


class JournalError(LoggerError, RuntimeError):
    """The journal cannot do what was asked."""


class JournalFull(JournalError, OSError):  # noqa: N818 - the name says it
    """There is no room on the disk; nothing was written, nothing is lost."""


class JournalDamaged(JournalError):  # noqa: N818 - the name says it
    """Stored bytes are not what was written."""


class FolderInUse(JournalError):  # noqa: N818 - the name says it
    """Another process holds the data folder."""


class FolderTooNew(JournalError):  # noqa: N818 - the name says it
    """The data folder was written by a newer version."""


class SigningKeyError(JournalError, ValueError):
    """The key that signs or checks checkpoints cannot be had; says what was expected."""


class SealingKeyError(JournalError, ValueError):
    """The key that opens sealed events cannot be had; says where it was expected."""


class SpoolError(LoggerError, RuntimeError):
    """The spool of the proxy cannot do what was asked."""
