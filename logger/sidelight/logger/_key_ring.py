"""The key files of a data folder: which there are, how they are opened, and who opens them.

``keys/ring`` holds a small secret for each key file, all of them encrypted with one wrapping key
that comes from outside. To destroy keys is to write their file anew under another secret and to
replace the ring: what is left of the old file, wherever it is left, opens with nothing.
"""

import base64
import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sidelight.logger._segments_folder import replace_file
from sidelight.logger.errors import SealingKeyError

_KEY: Final = re.compile(r"[0-9a-fA-F]{64}")
_OWN: Final = "wrapping.key"
_NONCE_BYTES: Final = 12
_CONTEXT: Final = b"sidelight key ring 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySource:
    """Where the wrapping key comes from: 64 hexadecimal digits.

    Parameters
    ----------
    file : str
        Path of a file that holds them.
    env : str
        Name of an environment variable that holds them.

    With neither, one is made in the folder of the keys.

    """

    file: str = ""
    env: str = ""

    def load(self, folder: Path, *, create: bool = False) -> bytes:
        """Return the key; raise ``SealingKeyError`` when it cannot be had."""
        name, text = self._text(folder, create=create)
        if text is None or not _KEY.fullmatch(text.strip()):
            got = "nothing" if not text else f"{len(text.strip())} other characters"
            raise SealingKeyError(
                f"key of sealed events: expected 64 hexadecimal digits in {name}, got {got}; "
                "make one with: openssl rand -hex 32"
            )
        return bytes.fromhex(text.strip())

    def _text(self, folder: Path, *, create: bool) -> tuple[str, str | None]:
        if self.env:
            return f"the environment variable {self.env}", os.environ.get(self.env)
        path = Path(self.file) if self.file else folder / _OWN
        if create and not self.file and not path.exists():
            replace_file(path, secrets.token_hex(32).encode() + b"\n", scratch=folder)
            path.chmod(0o600)
        try:
            return str(path), path.read_text(encoding="ascii", errors="replace")
        except OSError:
            return str(path), None

    def to_json(self) -> dict[str, str]:
        """Return what stands in the ring, so that every command finds the key by itself."""
        return {"file": self.file, "env": self.env}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """What opens one key file.

    Parameters
    ----------
    generation : str
        Part of its name; another one when it was written anew.
    secret : bytes
        Encrypts the keys in it.

    """

    generation: str
    secret: bytes

    @classmethod
    def fresh(cls) -> "KeyFile":
        """Return another generation."""
        return cls(generation=secrets.token_hex(4), secret=secrets.token_bytes(32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """What ``keys/ring`` says.

    Parameters
    ----------
    source : KeySource
        Where the wrapping key comes from.
    digest_key : bytes
        Keys the digests of requests, so that who has no keys cannot tell whose they are.
    files : mapping of int to KeyFile
        Key files by their number.
    current : int
        The one that the door appends to; -1 when it must begin another one.

    """

    source: KeySource
    digest_key: bytes
    files: Mapping[int, KeyFile] = field(default_factory=dict)
    current: int = -1


class KeyRing:
    """The ring of a data folder, read again when somebody has changed it.

    Parameters
    ----------
    data : Path
        The data folder.

    """

    def __init__(self, data: Path) -> None:
        self.folder = data / "keys"
        self._path = self.folder / "ring"
        self._known: Ring | None = None
        self._seen: tuple[int, int, int] | None = None

    @property
    def exists(self) -> bool:
        """Whether the folder has keys of its own."""
        return self._path.exists()

    def load(self) -> Ring | None:
        """Return the ring; None when there is none.

        Raises
        ------
        SealingKeyError
            When the wrapping key cannot be had, is another one, or the ring is damaged.

        """
        try:
            stat = self._path.stat()
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if seen != self._seen:
                self._known = _decoded(self._path.read_bytes(), self.folder)
                self._seen = seen
        except FileNotFoundError:
            self._known = self._seen = None
        return self._known

    def open(self, source: KeySource) -> Ring:
        """Return the ring for a writer: made when missing, wrapped anew under another key.

        Raises
        ------
        SealingKeyError
            When neither the former nor this wrapping key opens it.

        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.locked():
            source.load(self.folder, create=True)
            try:
                ring = self.load()
            except SealingKeyError:
                # The file of the key was moved, or the former key is destroyed already.
                ring = _decoded(self._path.read_bytes(), self.folder, source)
            if ring is None:
                ring = Ring(source=source, digest_key=secrets.token_bytes(32))
            return self.store(replace(ring, source=source, current=-1))

    def store(self, ring: Ring) -> Ring:
        """Replace the ring, durably; by who holds the lock."""
        for half in self.folder.glob("ring.*.tmp"):
            # Of a killed writer; it opens what is destroyed since.
            half.unlink(missing_ok=True)
        replace_file(self._path, _encoded(ring, self.folder), scratch=self.folder)
        self._path.chmod(0o600)
        self.forget()
        named = {key_file_name(of, file) for of, file in ring.files.items()}
        for path in self.folder.glob("*.keys"):
            if path.name not in named:
                path.unlink(missing_ok=True)
        return ring

    def forget(self) -> None:
        """Read the ring again the next time, whether it looks changed or not."""
        self._known = self._seen = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder of the keys for writing."""
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def key_file_name(number: int, file: KeyFile) -> str:
    """Return the name of a key file."""
    return f"{number:010x}-{file.generation}.keys"


def _encoded(ring: Ring, folder: Path) -> bytes:
    content = {
        "digest_key": ring.digest_key.hex(),
        "files": {str(of): [file.generation, file.secret.hex()] for of, file in ring.files.items()},
        "current": ring.current,
    }
    nonce = secrets.token_bytes(_NONCE_BYTES)
    box = AESGCM(ring.source.load(folder)).encrypt(nonce, json.dumps(content).encode(), _CONTEXT)
    outside: dict[str, Any] = {"wrapped_by": ring.source.to_json()}
    outside["box"] = base64.b64encode(nonce + box).decode()
    return json.dumps(outside).encode() + b"\n"


def _decoded(data: bytes, folder: Path, source: KeySource | None = None) -> Ring:
    try:
        outside = json.loads(data)
        source = source or KeySource(**outside["wrapped_by"])
        box = base64.b64decode(outside["box"], validate=True)
        wrapping = source.load(folder)
        text = AESGCM(wrapping).decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], _CONTEXT)
        content = json.loads(text)
        files = {
            int(of): KeyFile(generation=generation, secret=bytes.fromhex(secret))
            for of, (generation, secret) in content["files"].items()
        }
        return Ring(
            source=source,
            digest_key=bytes.fromhex(content["digest_key"]),
            files=files,
            current=content["current"],
        )
    except InvalidTag:
        raise SealingKeyError(
            "keys/ring: expected the wrapping key that it was written with, got another one; "
            "name that one in erasure.key_file or erasure.key_env"
        ) from None
    except SealingKeyError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        # No damage of the journal, which readers pass over: nothing is passed over for this.
        raise SealingKeyError(
            "keys/ring: expected the keys of sealed events, got other bytes; restore the folder "
            "keys/ from its own backup"
        ) from error
