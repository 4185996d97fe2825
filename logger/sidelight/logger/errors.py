"""Errors raised by capture and collection.

``LoggerError``
    ``EnvelopeError``   what arrived is no CloudEvent; it is refused or quarantined
    ``JournalError``    the journal cannot do what was asked
        ``JournalFull``     no room on the disk; nothing was written
        ``JournalDamaged``  stored bytes are not what was written
        ``FolderInUse``     another process holds the data folder
        ``FolderTooNew``    the data folder has a newer format version
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


class SpoolError(LoggerError, RuntimeError):
    """The spool of the proxy cannot do what was asked."""
