"""What is taken out of events before anything leaves the process."""

import hashlib
import hmac
import logging
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from sidelight.logger._binary_tensors import join, split
from sidelight.logger._envelope_inflate import GZIP_MAGIC, InflateError, gunzip, inflate
from sidelight.logger._json_values import read_json, write_json
from sidelight.logger._redaction_columns import NamedValues, has_values
from sidelight.logger._redaction_rule import Half, RedactionRule
from sidelight.logger._redaction_tensors import redact_binary, with_values
from sidelight.logger._redaction_values import Pseudonyms, Spelling, change_of
from sidelight.logger.errors import RedactionError, TensorError

log = logging.getLogger(__name__)

_MIN_KEY_BYTES: Final = 16
_MAX_REMEMBERED: Final = 1024
_FIRST_ERROR: Final = 400
_SPACE: Final = b" \t\r\n"
_PROTOBUF: Final = (b"protobuf", b"grpc")


class Body(NamedTuple):
    """One body of an exchange, and what its head says of it.

    ``coding`` is its Content-Encoding, ``head_bytes`` its Inference-Header-Content-Length;
    ``is_cut`` says that it is only the beginning, ``is_failure`` that it answers with an error.
    """

    data: bytes
    media: bytes = b""
    coding: bytes = b""
    head_bytes: int | None = None
    is_cut: bool = False
    is_failure: bool = False


class Redacted(NamedTuple):
    """A body as it may leave, not compressed; ``withheld`` says in a word why there is none."""

    data: bytes
    head_bytes: int | None = None
    withheld: str = ""


class Redaction:
    """Apply rules to bodies and headers, or withhold what they cannot be applied to.

    A body that a rule is about and that cannot be read, because it was cut, is compressed in an
    unknown way, is written in no dialect that is known, or makes anything fail, does not leave at
    all. Neither does the text of an error whose request rules are about: it may quote the request.
    What is read is written anew: white space, doubled keys and the spelling of numbers do not stay,
    values do. The id of an inference was read before that, and stays.

    Parameters
    ----------
    rules : iterable of RedactionRule
        Each is applied to what the one before left.
    key : bytes, default b""
        Of ``hmac`` and of the digests of what is withheld or cut; at least 16 bytes. Without one
        there are no such digests.
    spelling : {"hex", "base64url"}, default "hex"
        Of pseudonyms: 64 or 43 characters.
    max_inflated_bytes : int, default 64 MiB
        A compressed body beyond it is withheld.

    Raises
    ------
    ValueError
        When a rule needs a key and there is none, or it is too short.

    Examples
    --------
    >>> redaction = Redaction([RedactionRule(action="mask", column="name", text="***")])
    >>> redaction.body("request", ("prod/m",), Body(b'{"instances": [{"name": "Ada"}]}')).data
    b'{"instances":[{"name":"***"}]}'

    """

    def __init__(
        self,
        rules: Iterable[RedactionRule],
        *,
        key: bytes = b"",
        spelling: Spelling = "hex",
        max_inflated_bytes: int = 64 << 20,
    ) -> None:
        self.rules = tuple(rules)
        if key and len(key) < _MIN_KEY_BYTES:
            raise ValueError(f"key: expected at least {_MIN_KEY_BYTES} bytes, got {len(key)}")
        if not key and any(rule.action == "hmac" for rule in self.rules):
            raise ValueError("key: expected one, since a rule has the action hmac; got none")
        if spelling not in ("hex", "base64url"):
            raise ValueError(f"spelling: expected hex or base64url, got {spelling!r}")
        self._key = key
        self._pseudonyms = Pseudonyms(key, spelling) if key else None
        self._max_inflated_bytes = max_inflated_bytes
        self._known: dict[tuple[Half, tuple[str, ...]], _Applicable] = {}

    def is_about(self, half: Half, deployments: tuple[str, ...], *, is_failure: bool) -> bool:
        """Whether a body must not leave as it is: a rule is about it, or about what it quotes."""
        return self._has_rules(half, deployments) or (
            is_failure and half == "response" and self._has_rules("request", deployments)
        )

    def is_hashed(self, header: str) -> bool:
        """Whether a header leaves as a pseudonym only, whatever the exchange."""
        return any(
            rule.action == "hmac" and rule.on == "both" and rule.deployment == "*"
            for rule in self.rules
            if rule.header is not None and rule.header.lower() == header.lower()
        )

    def body(self, half: Half, deployments: tuple[str, ...], body: Body) -> Redacted:
        """Return what may leave of a body.

        Parameters
        ----------
        half : "request" or "response"
            Which one it is.
        deployments : tuple of str
            Names that the exchange may belong to; a rule about one of them applies.
        body : Body
            As captured.

        """
        applicable = self._applicable(half, deployments)
        if not (body.data or body.is_cut):
            return Redacted(b"", body.head_bytes)
        if half == "response" and body.is_failure and self._has_rules("request", deployments):
            return Redacted(b"", withheld="error")
        if not applicable.rules:
            return Redacted(body.data, body.head_bytes)
        return self._guarded(half, applicable, body)

    def header(self, half: Half, deployments: tuple[str, ...], name: str, value: str) -> str | None:
        """Return what may leave of a header; None when that is nothing."""
        for rule in self.rules:
            is_meant = rule.header is not None and rule.header.lower() == name.lower()
            if not is_meant or not any(rule.is_on(half, one) for one in deployments):
                continue
            number = _number(value) if rule.action in ("bucket", "round") else value
            changed = change_of(rule, self._pseudonyms)(number)
            if not isinstance(changed, (str, int, float)):
                return None
            value = str(changed)
        return value

    def digest(self, data: bytes) -> str:
        """Return a digest that only holders of the key can make; empty without a key."""
        if not self._key:
            return ""
        return hmac.new(self._key, hashlib.sha256(data).digest(), "sha256").hexdigest()

    def digest_of(self, sha256: bytes) -> str:
        """Return the same for bytes whose SHA-256 is known."""
        return hmac.new(self._key, sha256, "sha256").hexdigest() if self._key else ""

    def _has_rules(self, half: Half, deployments: tuple[str, ...]) -> bool:
        return bool(self._applicable(half, deployments).rules)

    def _applicable(self, half: Half, deployments: tuple[str, ...]) -> "_Applicable":
        known = self._known.get((half, deployments))
        if known is None:
            rules = tuple(
                rule
                for rule in self.rules
                if rule.header is None and any(rule.is_on(half, one) for one in deployments)
            )
            known = _Applicable(rules, tuple(self._step(rule, half) for rule in rules))
            # Clients choose paths, so names of deployments: a bound keeps the memory small.
            if len(self._known) >= _MAX_REMEMBERED:
                self._known.clear()
            self._known[half, deployments] = known
        return known

    def _step(self, rule: RedactionRule, half: Half) -> "_Step":
        if rule.json_path is None:
            return _ByName(NamedValues(rule, half, self._pseudonyms))
        return _ByPath(rule, self._pseudonyms)

    def _guarded(self, half: Half, applicable: "_Applicable", body: Body) -> Redacted:
        reason = "cut"
        try:
            if not body.is_cut:
                return self._redacted(half, applicable, body)
        except RedactionError as error:
            reason = error.reason
        except InflateError as error:
            reason = f"encoding {error.reason}"
        except TensorError:
            reason = "unreadable"
        except Exception as error:  # noqa: BLE001 - nothing that fails here may let a body pass
            # Neither the text nor the trace: they could quote what is to be kept in.
            log.error("a body cannot be redacted", extra={"error": type(error).__name__})  # noqa: TRY400
            reason = "failed"
        return Redacted(b"", withheld=reason)

    def _redacted(self, half: Half, applicable: "_Applicable", body: Body) -> Redacted:
        data = inflate(body.data, body.coding.decode("latin-1"), max_bytes=self._max_inflated_bytes)
        # MLServer's answers come so through loggers that lose the header.
        if data.startswith(GZIP_MAGIC):
            data = gunzip(data, max_bytes=self._max_inflated_bytes)
        first = data.lstrip(_SPACE)[:1]
        if any(mark in body.media.lower() for mark in _PROTOBUF) and first not in (b"{", b"["):
            return self._messages(half, applicable, data)
        if body.head_bytes is not None:
            return self._binary(applicable, data, body.head_bytes)
        try:
            value, is_strict = read_json(data)
        except ValueError:
            if first != b"{":
                raise RedactionError("unreadable") from None
            return self._binary(applicable, data, None)
        return Redacted(_json(applicable, value, is_strict=is_strict))

    def _binary(self, applicable: "_Applicable", data: bytes, head_bytes: int | None) -> Redacted:
        body = split(data, head_bytes)
        if all(chunk is None for chunk in body.chunks):
            return Redacted(_json(applicable, body.head, is_strict=body.is_strict))
        if any(rule.json_path is not None for rule in applicable.rules):
            # So that a path finds values where it would find them in JSON.
            return Redacted(_json(applicable, with_values(body), is_strict=False))
        if has_values(body.head, besides=body.key):
            raise RedactionError("unknown")
        return Redacted(*join(redact_binary(body, applicable.rules, self._pseudonyms)))

    def _messages(self, half: Half, applicable: "_Applicable", data: bytes) -> Redacted:
        if any(rule.json_path is not None for rule in applicable.rules):
            raise RedactionError("protobuf")  # no path leads into it
        # Protobuf's runtime takes longer to import than all the rest; most never need it.
        from sidelight.logger._redaction_messages import redact_messages  # noqa: PLC0415

        return Redacted(
            redact_messages(
                data,
                half,
                applicable.rules,
                self._pseudonyms,
                max_inflated_bytes=self._max_inflated_bytes,
            )
        )


class _ByName(NamedTuple):
    """A rule about a column or a tensor."""

    named: NamedValues

    def redact(self, value: Any) -> Any:
        self.named.redact(value)
        return value


class _ByPath:
    """A rule about a path."""

    def __init__(self, rule: RedactionRule, pseudonyms: Pseudonyms | None) -> None:
        self._path = rule.json_path
        self._change = change_of(rule, pseudonyms)

    def redact(self, value: Any) -> Any:
        return value if self._path is None else self._path.change(value, self._change)


_Step = _ByName | _ByPath


class _Applicable(NamedTuple):
    rules: tuple[RedactionRule, ...]
    steps: tuple[_Step, ...]


def _json(applicable: _Applicable, value: Any, *, is_strict: bool) -> bytes:
    for step in applicable.steps:
        value = step.redact(value)
    return write_json(value, is_strict=is_strict)


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return None
