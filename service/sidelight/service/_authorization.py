"""The token in a header ``Authorization``."""

import base64
import binascii


def token_text(authorization: str) -> str:
    """Return the token in a header ``Authorization``; empty when there is none.

    ``Bearer TOKEN``, and ``Basic`` with the token as password: a browser asks for that one.

    Examples
    --------
    >>> token_text("Bearer sl_1_2"), token_text("Basic eDpzbF8xXzI=")
    ('sl_1_2', 'sl_1_2')

    """
    scheme, _, value = authorization.strip().partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        return value
    if scheme.lower() != "basic":
        return ""
    try:
        credentials = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return credentials.partition(":")[2]
