"""Names of indices and fields that a search server takes, made of names that it may not."""

import hashlib
import re
from typing import Final

_UNSAFE: Final = re.compile(r"[^a-z0-9._-]")
# 255 bytes are the limit of an index; the prefix and the date need some.
_MAX_DEPLOYMENT: Final = 160
# A dot would make an object of a name, a star a pattern in every query.
_RESERVED: Final = re.compile(r"[%.*\x00-\x1f\x7f\ufeff]|^[\s_]|\s$")
_MAX_FIELD: Final = 200


def index_stem(prefix: str, kind: str, deployment: str) -> str:
    """Return the name of an index without its date.

    Whatever an index cannot be called is replaced, and a digest keeps such names apart.

    Examples
    --------
    >>> index_stem("sidelight", "inferences", "prod/flights")
    'sidelight-inferences-prod-flights'
    >>> index_stem("sidelight", "inferences", "prod/A B")
    'sidelight-inferences-prod-a_b-38fd9fca'

    """
    plain = deployment.replace("/", "-", 1)
    safe = _UNSAFE.sub("_", plain.lower())[:_MAX_DEPLOYMENT]
    if safe != plain:
        safe += f"-{hashlib.sha256(deployment.encode()).hexdigest()[:8]}"
    return f"{prefix}-{kind}-{safe}"


def field_name(name: str) -> str:
    """Return the name of a column as a field: what cannot stand in one is percent-encoded.

    Examples
    --------
    >>> field_name("petal length"), field_name("a.b"), field_name("")
    ('petal length', 'a%2Eb', '%')

    """
    if not name:
        return "%"
    safe = _RESERVED.sub(_encoded, name)
    if len(safe) > _MAX_FIELD:
        safe = f"{safe[:_MAX_FIELD]}%{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return safe


def _encoded(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())
