"""What stands before the door: ingest tokens, their namespaces, and quotas."""

import math
import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from sidelight.logger import (
    EventLimits,
    EventRecord,
    Request,
    deployment_name,
    feedback,
    identity,
    parse,
    problem,
)
from sidelight.service._access import tokens_required
from sidelight.service._authorization import token_text
from sidelight.service._names import stored_name
from sidelight.service._settings import Settings
from sidelight.service._settings_access import QuotaSettings
from sidelight.service._tokens import Token, Tokens

_PATH: Final = re.compile(rb"/events/([^/?]+)")
_AUTHORIZATION: Final = re.compile(rb"\r\nauthorization:([^\r\n]*)", re.IGNORECASE)
# As much as comes at once is taken as what comes in that time.
_BURST_S: Final = 10.0
_MAX_QUOTAS: Final = 10_000
_ANY: Final = "*"


class IngestGate:
    """Asks strangers for a token, and holds namespaces to their quotas; see ``Gate``.

    Parameters
    ----------
    settings : Settings
        Say what is required.
    clock : callable, optional
        Monotonic seconds, for tests.

    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._is_open = not tokens_required(settings) or settings.auth.ingest == "none"
        self._tokens = Tokens(settings.data)
        self._quotas = {
            stored_namespace(name): _Quota(limits, clock)
            for name, limits in settings.quotas.items()
            if name != _ANY
        }
        self._default = settings.quotas.get(_ANY)
        self._clock = clock
        # The consumer's own: what it reads later must not be unreadable here.
        self._limits = EventLimits(max_inflated_bytes=settings.limits.decompressed)

    def admit(self, target: bytes, head: bytes) -> bytes | None:
        """Refuse who has no ingest token, before the body is read."""
        if self._is_open:
            return None
        token = self._token_of(target, head)
        if token is None:
            return _unauthorized()
        if "ingest" not in token.allowed:
            return _forbidden("this takes the role ingest", "a token with role ingest")
        return None

    def check(self, request: Request) -> bytes | None:
        """Refuse events of namespaces that are not the sender's, or that have had their share."""
        allowed = None
        if not self._is_open:
            token = self._token_of(request.target, request.head)
            if token is None:
                return _unauthorized()  # revoked while the body came
            allowed = token.namespaces
        if allowed is None and not self._quotas and self._default is None:
            return None
        sent = _sent_by_namespace(request, self._limits)
        if allowed is not None and not sent.keys() <= set(allowed):
            return _forbidden(
                "the token is limited to namespaces", "events of " + ", ".join(sorted(allowed))
            )
        return self._within_quotas(sent)

    def passes(self, target: bytes, head: bytes) -> bool:
        """Whether the sender may send events of all namespaces, and none of them has a quota."""
        if self._quotas or self._default is not None:
            return False
        if self._is_open:
            return True
        token = self._token_of(target, head)
        return token is not None and "ingest" in token.allowed and token.namespaces is None

    def _token_of(self, target: bytes, head: bytes) -> Token | None:
        if path := _PATH.match(target):
            return self._tokens.find(path[1].decode("latin-1"))
        if header := _AUTHORIZATION.search(head):
            return self._tokens.find(token_text(header[1].decode("latin-1")))
        return None

    def _within_quotas(self, sent: Mapping[str, "_Sent"]) -> bytes | None:
        quotas = [(self._quota_of(name), amount) for name, amount in sent.items()]
        wait_s = max((quota.wait_s() for quota, _ in quotas if quota is not None), default=0.0)
        if wait_s > 0:
            return _too_many(wait_s)
        for quota, amount in quotas:
            if quota is not None:
                quota.take(amount)
        return None

    def _quota_of(self, namespace: str) -> "_Quota | None":
        quota = self._quotas.get(namespace)
        if quota is None and self._default is not None:
            # Senders choose the names: those that are too many share one quota.
            key = namespace if len(self._quotas) < _MAX_QUOTAS else _ANY
            quota = self._quotas.get(key)
            if quota is None:
                quota = self._quotas[key] = _Quota(self._default, self._clock)
        return quota


@dataclass(slots=True)
class _Sent:
    """What one request brings for one namespace."""

    events: int = 0
    bytes: int = 0


class _Bucket:
    """A token bucket that a large request may leave in debt: nothing is too large for ever."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._level = rate * _BURST_S
        self._filled = clock()

    def wait_s(self) -> float:
        now = self._clock()
        self._level = min(self._rate * _BURST_S, self._level + (now - self._filled) * self._rate)
        self._filled = now
        return max(0.0, -self._level / self._rate)

    def take(self, amount: float) -> None:
        self._level -= amount


class _Quota:
    """The share of one namespace."""

    def __init__(self, limits: QuotaSettings, clock: Callable[[], float]) -> None:
        rates = (limits.events_per_second, limits.bytes_per_second)
        self._buckets = [None if rate is None else _Bucket(rate, clock) for rate in rates]

    def wait_s(self) -> float:
        return max((bucket.wait_s() for bucket in self._buckets if bucket), default=0.0)

    def take(self, amount: _Sent) -> None:
        for bucket, size in zip(self._buckets, (amount.events, amount.bytes), strict=True):
            if bucket is not None:
                bucket.take(size)


def stored_namespace(name: str) -> str:
    """Return the form of a namespace in which deployments are stored."""
    return deployment_name(name, "-").partition("/")[0]


def _sent_by_namespace(request: Request, limits: EventLimits) -> dict[str, _Sent]:
    record = EventRecord(
        partition=0, position=0, received_ns=0, head=request.head, body=request.body
    )
    events, _ = parse(record, limits)
    sent: dict[str, _Sent] = defaultdict(_Sent)
    for event in events:
        amount = sent[stored_namespace(identity(event).namespace)]
        amount.events += 1
        amount.bytes += len(event.data)
        for label in feedback(event)[0]:
            # A label may name another deployment than its event does.
            _ = sent[stored_name(label["deployment"]).partition("/")[0]]
    if len(sent) == 1:
        next(iter(sent.values())).bytes = len(request.head) + len(request.body)
    return sent


def _unauthorized() -> bytes:
    return problem(
        401,
        "the request has no valid token",
        expected="Authorization: Bearer TOKEN, or POST /events/TOKEN, neither expired nor revoked",
        hint="sidelight token create --role ingest; or auth.ingest: none",
        headers=((b"www-authenticate", b'Bearer realm="sidelight"'),),
    )


def _forbidden(detail: str, expected: str) -> bytes:
    return problem(403, detail, expected=expected)


def _too_many(wait_s: float) -> bytes:
    retry_s = math.ceil(wait_s)
    return problem(
        429,
        "the namespace has sent more than its quota",
        expected="no more than quotas of the configuration allows",
        hint=f"send it again after {retry_s} s; nothing of it was stored",
        headers=((b"retry-after", b"%d" % retry_s),),
    )
