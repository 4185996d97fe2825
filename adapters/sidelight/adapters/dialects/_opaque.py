"""What no dialect knows: one feature that holds it all, so that nothing valid is refused."""

import base64
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from sidelight.adapters.dialects._half import TEXT, Half, Layout, Tensor

# Control characters that no text holds: small numbers in binary tensors are valid UTF-8 too.
_BINARY: Final = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_NO_FACTS: Final[Mapping[str, Any]] = {}
# A body without bytes, as that of a GET, says nothing of any feature.
_NOTHING: Final = Layout("opaque", "empty")


def opaque(data: bytes, reason: str | None = None, *, form: str = "text") -> Half:
    """Return a body as one row of one value: text as it is, other bytes as base64.

    Parameters
    ----------
    data : bytes
        As it came, or inflated; without any it is one row without a value.
    reason : str or None
        Why it was not decoded, for the counter.
    form : "json" or "text", default "text"
        What the text is; bytes that are no UTF-8 are ``base64`` instead.

    """
    if not data:
        return Half(_NOTHING, 1, (), {"empty": True}, reason)
    try:
        text = data.decode()
        if _BINARY.search(text) is None:
            return Half(_layout(form), 1, ([text],), _NO_FACTS, reason)
    except UnicodeDecodeError:
        pass
    text = base64.b64encode(data).decode("ascii")
    return Half(_layout("base64"), 1, ([text],), _NO_FACTS, reason)


@lru_cache(maxsize=8)
def _layout(form: str) -> Layout:
    return Layout("opaque", form, (Tensor(name=None, datatype=TEXT),))
