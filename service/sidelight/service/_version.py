"""The version of the installed distribution."""

from importlib.metadata import version as _installed


def version() -> str:
    """Return the version of ``sidelight`` as installed."""
    return _installed("sidelight")
