"""What is captured at all: by method, path, and the marks of traffic that nobody wants to see."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Final

SILENT_METHODS: Final = ("GET", "HEAD", "OPTIONS")
"""Methods of reads, which are not captured by default."""

PROBE_PATHS: Final = (
    "*/metrics",
    "*/health",
    "*/healthz",
    "*/live",
    "*/livez",
    "*/ready",
    "*/readyz",
    "*/ping",
    "*/health/status",
)
"""Patterns of probes, which are not captured by default."""

_MARKS: Final = re.compile(
    rb"\r\n(?:sidelight-skip|seldon-skip-logging):[ \t]*(?:true|on|1)[ \t]*\r\n", re.IGNORECASE
)
_MAX_REMEMBERED: Final = 1024
_MAX_REMEMBERED_BYTES: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Decide from the head of a request whether its exchange is captured.

    Patterns are those of a shell (``*``, ``?``, ``[...]``; ``*`` matches slashes as well), matched
    against the whole path as it was sent, without the query; upper and lower case differ.

    Parameters
    ----------
    paths : tuple of str, default ("*",)
        Only what matches one of these is captured.
    skip_paths : tuple of str, default PROBE_PATHS
        What matches one of these is not.
    skip_methods : tuple of str, default ("GET", "HEAD", "OPTIONS")
        Requests with these methods are not.

    Requests marked by ``Sidelight-Skip: true`` or Seldon's ``Seldon-Skip-Logging`` never are;
    explainers send both.

    Raises
    ------
    ValueError
        When a pattern or a method is empty, or there is no path at all.

    Examples
    --------
    >>> selection = Selection(paths=("/v2/*",))
    >>> selection.captures(b"POST", b"/v2/models/flights/infer", b"")
    True
    >>> selection.captures(b"POST", b"/v1/models/flights:predict", b"")
    False

    """

    paths: tuple[str, ...] = ("*",)
    skip_paths: tuple[str, ...] = PROBE_PATHS
    skip_methods: tuple[str, ...] = SILENT_METHODS
    _wanted: re.Pattern[bytes] = field(init=False, repr=False, compare=False)
    _unwanted: re.Pattern[bytes] | None = field(init=False, repr=False, compare=False)
    _methods: frozenset[bytes] = field(init=False, repr=False, compare=False)
    _known: dict[tuple[bytes, bytes], bool] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        for name in ("paths", "skip_paths", "skip_methods"):
            if not all(getattr(self, name)):
                raise ValueError(f"{name}: expected non-empty strings, got {getattr(self, name)!r}")
        if not self.paths:
            raise ValueError("paths: expected at least one pattern, got none; '*' captures all")
        set_field = object.__setattr__
        set_field(self, "_wanted", any_of(self.paths))
        set_field(self, "_unwanted", any_of(self.skip_paths) if self.skip_paths else None)
        set_field(self, "_methods", frozenset(method.encode() for method in self.skip_methods))

    def captures(self, method: bytes, target: bytes, head: bytes) -> bool:
        """Whether the exchange that begins with this head is captured; see ``Tap.wants``."""
        known = self._known.get((method, target))
        if known is None:
            known = self._may_be(method, target)
            if len(target) <= _MAX_REMEMBERED_BYTES:
                # Clients choose targets: a bound, and a fresh start, keep the memory small.
                if len(self._known) >= _MAX_REMEMBERED:
                    self._known.clear()
                self._known[method, target] = known
        return known and _MARKS.search(head) is None

    def _may_be(self, method: bytes, target: bytes) -> bool:
        path = path_of(target)
        return (
            method not in self._methods
            and self._wanted.fullmatch(path) is not None
            and (self._unwanted is None or self._unwanted.fullmatch(path) is None)
        )


def path_of(target: bytes) -> bytes:
    """Return the path of a request target, origin or absolute form, without the query.

    Examples
    --------
    >>> path_of(b"http://models/v2/health?full=1")
    b'/v2/health'

    """
    path = target.partition(b"?")[0]
    return path if path.startswith(b"/") else b"/" + path.partition(b"://")[2].partition(b"/")[2]


def any_of(patterns: Iterable[str]) -> re.Pattern[bytes]:
    """Return one expression that fully matches what one of the shell patterns matches."""
    return re.compile(b"|".join(b"(?:%b)" % translate(pattern).encode() for pattern in patterns))
