"""The files of keys of sealed events: slots, and the digests of erased requests.

A key file is a header and slots of 48 bytes: the digest of the request that a key belongs to, and
the key, encrypted with the file's secret (AES-256 in counter mode; a wrong secret gives a wrong
key, which opens nothing). The number of a key is the number of its file and its slot. A slot that
is zero was destroyed. ``keys/erased`` holds the digests of erased requests: none of them gets a
key again.
"""

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from sidelight.logger._sealed_body import KEY_BYTES
from sidelight.logger.errors import SealingKeyError

DIGEST_BYTES: Final = 16
NEVER_KEPT: Final = (1 << 64) - 1
"""Number of a key that was thrown away at once, since its request is erased already."""

SLOTS_A_FILE: Final = 1 << 16
SLOT_BITS: Final = 24
SLOT_BYTES: Final = DIGEST_BYTES + KEY_BYTES
MAGIC: Final = b"SIDELKEY"
HEADER: Final = struct.Struct("<8sQ")

_BLOCKS_A_KEY: Final = KEY_BYTES // 16


def request_digest(digest_key: bytes, deployment: str, request_id: str) -> bytes:
    """Return 16 bytes that stand for a request to those who have the keys, and to nobody else."""
    text = f"{len(deployment)}:{deployment}{request_id}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=DIGEST_BYTES, key=digest_key).digest()


def crypted(keys: bytes, secret: bytes, *, slot: int) -> bytes:
    """Encrypt or decrypt the keys of consecutive slots."""
    counter = (slot * _BLOCKS_A_KEY).to_bytes(16, "big")
    cipher = Cipher(algorithms.AES(secret), modes.CTR(counter)).encryptor()
    return cipher.update(keys) + cipher.finalize()


def slots_of(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Return digest and encrypted key of each slot of a file."""
    data = path.read_bytes()
    if data[: len(MAGIC)] != MAGIC:
        raise SealingKeyError(f"keys/{path.name}: expected a key file, got other bytes")
    for at in range(HEADER.size, len(data) - SLOT_BYTES + 1, SLOT_BYTES):
        yield data[at : at + DIGEST_BYTES], data[at + DIGEST_BYTES : at + SLOT_BYTES]


def digests_of(data: bytes) -> list[bytes]:
    """Return the whole digests in a file of erased requests."""
    whole = len(data) - len(data) % DIGEST_BYTES
    return [data[at : at + DIGEST_BYTES] for at in range(0, whole, DIGEST_BYTES)]
