"""Which exchanges are sent on when not all are: the same ones wherever the question is asked."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from sidelight.logger._exchange import Exchange
from sidelight.logger._request_id import header
from sidelight.logger._selection import any_of, path_of

_SCALE: Final = 1 << 64
_FIRST_ERROR: Final = 400
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_STATUS: Final = re.compile(r"[1-5](?:[0-9]{2}|xx)")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingRule:
    """A rate for some of the traffic.

    Parameters
    ----------
    rate : float
        Share that is kept, from 0 to 1.
    deployment : str, default "*"
        Shell pattern over ``namespace/name``.
    path : str, default "*"
        Shell pattern over the path as it was sent, without the query.
    statuses : tuple of str, default ()
        Statuses of the answer, each ``"404"`` or a class as ``"5xx"``; none means any.

    Raises
    ------
    ValueError
        When the rate is no share, or a status or a pattern is none.

    """

    rate: float
    deployment: str = "*"
    path: str = "*"
    statuses: tuple[str, ...] = ()
    _deployment: re.Pattern[bytes] = field(init=False, repr=False, compare=False)
    _path: re.Pattern[bytes] = field(init=False, repr=False, compare=False)
    _statuses: frozenset[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_rate(self.rate)
        for name in ("deployment", "path"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected a pattern, got an empty string; '*' is any")
        set_field = object.__setattr__
        set_field(self, "_deployment", any_of((self.deployment,)))
        set_field(self, "_path", any_of((self.path,)))
        set_field(self, "_statuses", frozenset(_statuses(self.statuses)))

    def matches(self, deployment: str, path: bytes, status: int) -> bool:
        """Whether the rule is about this exchange."""
        return (
            (not self._statuses or status in self._statuses)
            and self._deployment.fullmatch(deployment.encode()) is not None
            and self._path.fullmatch(path) is not None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptHeader:
    """A header of the request that has its exchange kept, whatever the rates.

    Parameters
    ----------
    name : str
        Of the header; upper and lower case do not differ.
    value : str, default ""
        That the header must have; empty means any, an empty one too.

    Raises
    ------
    ValueError
        When ``name`` is none of a header.

    """

    name: str
    value: str = ""

    def __post_init__(self) -> None:
        _check_header("name", self.name)

    def is_in(self, head: bytes, lowered: bytes) -> bool:
        """Whether a raw head has it; ``lowered`` is the head in lower case."""
        key = b"\r\n%b:" % self.name.lower().encode()
        if key not in lowered:
            return False
        return not self.value or header(head, lowered, key) == self.value.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Keep a share of the exchanges, the same ones in every component.

    The key is the value of ``key_header``, or the request id where there is none. Its SHA-256
    begins with 8 bytes, read as one big-endian number ``h``; the exchange is kept when
    ``h < rate * 2**64``. So both halves of an inference, all nodes of a graph and every replica
    that use one key and one rate agree, and what is kept at one rate is kept at any higher one.

    The first rule that matches gives the rate, ``rate`` when none does. It is decided when the
    exchange is complete, because rules and ``keep_errors`` look at the status.

    Parameters
    ----------
    rate : float, default 1.0
        Share of what no rule matches.
    rules : tuple of SamplingRule, default ()
        In order.
    key_header : str, default ""
        A header of the request whose value is the key, for example that of a session or a tenant;
        empty: the request id.
    keep_errors : bool, default False
        Keep every exchange that failed: status 400 or more, or ended in its middle.
    keep_slower_than_ms : float or None, default None
        Keep every exchange whose latency was longer, milliseconds.
    keep_headers : tuple of KeptHeader, default ()
        Keep every exchange whose request has one of these.

    Raises
    ------
    ValueError
        When a rate is no share, a bound is negative, or a name is none of a header.

    Examples
    --------
    >>> sampling = Sampling(rate=0.1, keep_errors=True)
    >>> Sampling.share_of(b"r-1") < 1
    True

    """

    rate: float = 1.0
    rules: tuple[SamplingRule, ...] = ()
    key_header: str = ""
    keep_errors: bool = False
    keep_slower_than_ms: float | None = None
    keep_headers: tuple[KeptHeader, ...] = ()
    _key: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_rate(self.rate)
        if self.key_header:
            _check_header("key_header", self.key_header)
        bound = self.keep_slower_than_ms
        if bound is not None and not bound >= 0:
            raise ValueError(f"keep_slower_than_ms: expected 0 or more, got {bound}")
        key = b"\r\n%b:" % self.key_header.lower().encode() if self.key_header else b""
        object.__setattr__(self, "_key", key)

    @staticmethod
    def share_of(key: bytes) -> float:
        """Return where a key stands in [0, 1); it is kept at every rate above that."""
        return _number(key) / _SCALE

    def rate_of(self, exchange: Exchange, request_id: bytes, deployment: str) -> float | None:
        """Return the probability with which an exchange like this is kept, None when it is not.

        Parameters
        ----------
        exchange : Exchange
            Complete.
        request_id : bytes
            Its id, from ``Capture.identify``.
        deployment : str
            ``namespace/name``, from ``Capture.deployment_of``.

        Returns
        -------
        float or None
            In (0, 1]; 1 when a rule of keeping applies.

        """
        rate = self._rate(exchange, deployment)
        if rate >= 1:
            return 1.0
        lowered = b""
        if self._key or self.keep_headers:
            lowered = exchange.request_head.lower()
        if self._keeps(exchange, lowered):
            return 1.0
        key = header(exchange.request_head, lowered, self._key) if self._key else b""
        return rate if _number(key or request_id) < rate * _SCALE else None

    def _rate(self, exchange: Exchange, deployment: str) -> float:
        if self.rules:
            path = path_of(exchange.target)
            for rule in self.rules:
                if rule.matches(deployment, path, exchange.status):
                    return rule.rate
        return self.rate

    def _keeps(self, exchange: Exchange, lowered: bytes) -> bool:
        if self.keep_errors and (exchange.status >= _FIRST_ERROR or exchange.aborted_by):
            return True
        bound = self.keep_slower_than_ms
        if bound is not None and exchange.latency_ms > bound:
            return True
        head = exchange.request_head
        return any(kept.is_in(head, lowered) for kept in self.keep_headers)


def _number(key: bytes) -> int:
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big")


def _check_rate(rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ValueError(f"rate: expected a share from 0 to 1, got {rate}")


def _check_header(field_name: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{field_name}: expected the name of a header, got {name!r}")


def _statuses(texts: Iterable[str]) -> Iterable[int]:
    for text in texts:
        if not _STATUS.fullmatch(text):
            raise ValueError(f"statuses: expected '404' or a class as '5xx', got {text!r}")
        if text.endswith("xx"):
            yield from range(int(text[0]) * 100, int(text[0]) * 100 + 100)
        else:
            yield int(text)
