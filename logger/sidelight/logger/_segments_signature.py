"""Signatures of checkpoints: who holds the public key alone can tell what was forged."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sidelight.logger.errors import SigningKeyError

# Most commands sign nothing and need not wait for it.
if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# What a signature is for stands before what is signed, so that none is good for something else.
_CONTEXT: Final = b"sidelight checkpoint 1\n"
_KEY_BYTES: Final = 32


class Signer:
    """Signs checkpoints with one Ed25519 key (RFC 8032).

    Parameters
    ----------
    key : Ed25519PrivateKey
        The key.
    trusted : iterable of str
        Public keys of former signers, hexadecimal, whose checkpoints a start takes over.

    Attributes
    ----------
    public_key : str
        64 hexadecimal digits.
    trusted : frozenset of str
        Whose checkpoints are taken over, this key's included.

    """

    def __init__(self, key: "Ed25519PrivateKey", *, trusted: tuple[str, ...] = ()) -> None:
        self._key = key
        self.public_key = key.public_key().public_bytes_raw().hex()
        self.trusted = frozenset((self.public_key, *trusted))

    @classmethod
    def load(cls, path: Path, *, trusted: tuple[str, ...] = (), create: bool = False) -> "Signer":
        """Read the key from a PEM file (PKCS #8, no passphrase).

        Parameters
        ----------
        path : Path
            The file; its public key is written beside it as ``.pub`` when it is made.
        trusted : tuple of str
            See the class.
        create : bool, default False
            Make the file when it is missing, readable by its owner only.

        Raises
        ------
        SigningKeyError
            When the file cannot be read or made, or holds another kind of key.

        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - see above
            Ed25519PrivateKey,
        )
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
            load_pem_private_key,
        )

        try:
            if create and not path.exists():
                _create(path, Ed25519PrivateKey.generate())
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            why = error.strerror if isinstance(error, OSError) else "something else"
            raise SigningKeyError(
                f"signing key {path}: expected an Ed25519 key as PEM without a passphrase, got "
                f"{why}; make one with: openssl genpkey -algorithm ed25519"
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SigningKeyError(
                f"signing key {path}: expected an Ed25519 key, got {type(key).__name__}"
            )
        return cls(key, trusted=trusted)

    def sign(self, text: bytes) -> str:
        """Return the signature of a text, 128 hexadecimal digits."""
        return self._key.sign(_CONTEXT + text).hex()


def is_signed(text: bytes, *, public_key: str, signature: str) -> bool:
    """Whether a signature is the key's own of this text; False for whatever is no signature."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PublicKey,
    )

    try:
        key = Ed25519PublicKey.from_public_bytes(_from_hex(public_key))
        key.verify(_from_hex(signature), _CONTEXT + text)
    except (ValueError, InvalidSignature):
        return False
    return True


def _from_hex(text: str) -> bytes:
    """Read the one form that is written; others with the same meaning are changed bytes."""
    found = bytes.fromhex(text)
    if found.hex() != text:
        raise ValueError("not as it is written")
    return found


def read_public_key(text: str) -> str:
    """Return a public key given as 64 hexadecimal digits, or as a file that holds them.

    Raises
    ------
    SigningKeyError
        When it is neither.

    """
    found = text
    try:
        if len(text) != 2 * _KEY_BYTES:
            found = Path(text).read_text(encoding="ascii").strip()
        if len(bytes.fromhex(found)) == _KEY_BYTES:
            return found.lower()
    except (OSError, ValueError):
        pass
    raise SigningKeyError(
        f"public key: expected {2 * _KEY_BYTES} hexadecimal digits, or a file that holds them, "
        f"got {text[:80]!r}"
    )


def _create(path: Path, key: "Ed25519PrivateKey") -> None:
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - see above
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    public = key.public_key().public_bytes_raw().hex()
    path.with_suffix(".pub").write_text(f"{public}\n", encoding="ascii")
    # Under another name first: half of a key would stop every later start.
    new = path.with_suffix(".new")
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "wb") as stream:
        stream.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(path)
