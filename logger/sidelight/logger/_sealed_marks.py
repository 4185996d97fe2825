"""How sealed requests are known, and what stands for those that nobody can read any more."""

from typing import Final

SEALED_MAGIC: Final = b"\xf5SLe"
ERASED_TYPE: Final = "io.sidelight.erased"
"""Type of the events that stand for what cannot be read any more; nobody does anything with one."""
ERASED_HEAD: Final = (
    b"POST /events HTTP/1.1\r\nce-specversion: 1.0\r\nce-type: io.sidelight.erased\r\n"
    b"ce-source: /erased\r\nce-id: 0\r\n\r\n"
)
"""The head of a request of which nothing can be read any more."""
ERASED_MEMBER: Final = (
    b'{"specversion":"1.0","type":"io.sidelight.erased","source":"/erased","id":"0"}'
)
"""What stands for a member of a batch that cannot be read: the others keep their numbers."""


def is_sealed(body: bytes) -> bool:
    """Whether a stored body is a sealed one; no request of ours begins so."""
    return body.startswith(SEALED_MAGIC)
