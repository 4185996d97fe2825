"""The tombstone: an event of the archive that says which keys were destroyed, why and by whom.

It stands in the chain like any other event, and holds no value of what was erased. Its code
(HMAC-SHA-256 with the digest key of the ring) keeps a sender of events from making one.
"""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import orjson

ERASURE_TYPE: Final = "io.sidelight.erasure"
_TYPE: Final = ERASURE_TYPE.encode()
_END: Final = b"\r\n\r\n"
# As many fit into the smallest body that a door may be bounded to.
KEYS_A_TOMBSTONE: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """What one tombstone says.

    Parameters
    ----------
    erasure : str
        Id of the erasure.
    deployment : str
        ``namespace/name``, in its stored form.
    by, reason, time : str
        Who, why and when.
    keys : tuple of int
        Numbers of the keys that were destroyed.

    """

    erasure: str
    deployment: str
    by: str
    reason: str
    time: str
    keys: tuple[int, ...]

    def request(self, digest_key: bytes) -> tuple[bytes, bytes]:
        """Return head and body of the request that puts it into the archive."""
        namespace, _, name = self.deployment.partition("/")
        content = self._content()
        code = _code(content, digest_key)
        body = orjson.dumps({**content, "code": code})
        attributes = {
            "specversion": "1.0",
            "type": ERASURE_TYPE,
            "source": "/sidelight/erase",
            "id": f"{self.erasure}-{code[:8]}",
            "time": self.time,
            "namespace": _header(unquote(namespace)),
            "inferenceservicename": _header(unquote(name)),
        }
        lines = ["POST /events HTTP/1.1", "host: door", "content-type: application/json"]
        lines += [f"content-length: {len(body)}"]
        lines += [f"ce-{key}: {value}" for key, value in attributes.items()]
        return "\r\n".join(lines).encode() + _END, body

    def _content(self) -> dict[str, Any]:
        return {
            "erasure": self.erasure,
            "deployment": self.deployment,
            "by": self.by,
            "reason": self.reason,
            "time": self.time,
            "keys": list(self.keys),
        }


def tombstones(
    numbers: Sequence[int], *, erasure: str, deployment: str, by: str, reason: str, time: str
) -> list[Tombstone]:
    """Return what says that these keys are gone; one at least, so that each erasure is told."""
    return [
        Tombstone(
            erasure=erasure,
            deployment=deployment,
            by=by,
            reason=reason,
            time=time,
            keys=tuple(numbers[start : start + KEYS_A_TOMBSTONE]),
        )
        for start in range(0, max(len(numbers), 1), KEYS_A_TOMBSTONE)
    ]


def tombstone_keys(head: bytes, body: bytes, digest_key: bytes) -> frozenset[int] | None:
    """Return the keys that a record says are destroyed; None when it is no tombstone of ours."""
    if _TYPE not in head:
        return None
    try:
        content: Mapping[str, Any] = orjson.loads(body)
        given = str(content["code"])
        rest = {name: value for name, value in content.items() if name != "code"}
        if not hmac.compare_digest(given.encode(), _code(rest, digest_key).encode()):
            return None
        return frozenset(int(number) for number in content["keys"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _code(content: Mapping[str, Any], digest_key: bytes) -> str:
    text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return hmac.digest(digest_key, text, "sha256").hex()


def _header(text: str) -> str:
    """Percent-encode what a header cannot hold (CloudEvents HTTP binding 3.1.3.2)."""
    return "".join(
        char
        if "!" <= char <= "~" and char not in '"%'
        else "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "replace"))
        for char in text
    )
