"""Tokens: who may do what, for how long, in which namespaces. Only their digests are kept."""

import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal, get_args

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from sidelight.service.errors import ConfigurationError, NotFound

log = logging.getLogger(__name__)

Role = Literal["ingest", "read", "explain", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

# What a role may do besides its own.
_IMPLIED: Final[dict[Role, frozenset[Role]]] = {
    "ingest": frozenset({"ingest"}),
    "read": frozenset({"read"}),
    "explain": frozenset({"read", "explain"}),
    "admin": frozenset(ROLES),
}
_FORMAT: Final = 1
_TEXT: Final = re.compile(r"sl_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
# A token that was revoked is refused at most this much later, without a look at the file at each
# request.
_FRESH_S: Final = 0.5


class Token(BaseModel):
    """One token as it is kept; its secret is not in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    """12 hexadecimal digits, the public part of the token's text."""

    name: str = ""
    """What it is for, as people wrote it."""

    roles: tuple[Role, ...]
    """What it may do; ``admin`` includes everything, ``explain`` includes ``read``."""

    namespaces: tuple[str, ...] | None = None
    """The only namespaces it is good for; None for all."""

    created: datetime
    """When it was made."""

    expires: datetime | None = None
    """From then on it is refused."""

    digest: str
    """SHA-256 of its secret: 256 random bits need no slow hash."""

    former_digest: str | None = None
    """Of the secret before the last rotation."""

    former_expires: datetime | None = None
    """Until then the former secret is taken as well."""

    @property
    def allowed(self) -> frozenset[Role]:
        """Every role that it may act in."""
        return frozenset().union(*(_IMPLIED[role] for role in self.roles))

    def is_valid(self, secret: str, now: datetime) -> bool:
        """Whether the secret is this token's, now."""
        if self.expires is not None and now >= self.expires:
            return False
        digest = _digest(secret)
        if hmac.compare_digest(digest, self.digest):
            return True
        if self.former_digest is None or self.former_expires is None or now >= self.former_expires:
            return False
        return hmac.compare_digest(digest, self.former_digest)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = _FORMAT
    tokens: tuple[Token, ...] = ()


class Tokens:
    """The tokens of one data folder, in ``access/tokens.json``; several processes may use it.

    Parameters
    ----------
    data : Path
        The data folder.
    clock : callable, optional
        Monotonic seconds, for tests.

    """

    def __init__(self, data: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = data / "access" / "tokens.json"
        self._clock = clock
        self._known: dict[str, Token] = {}
        self._checked: dict[str, Token] = {}  # by text: a sender shows its token all the time
        self._stamp: tuple[int, int, int] | None = None
        self._looked = -_FRESH_S

    def find(self, text: str) -> Token | None:
        """Return the valid token that a text is, or None; what changed is seen within 0.5 s."""
        self._refresh()
        token = self._checked.get(text)
        if token is not None:
            return token
        match = _TEXT.fullmatch(text)
        if match is None:
            return None
        if match[1] not in self._known:
            self._refresh(at_once=True)  # a new one is good from its first moment on
        token = self._known.get(match[1])
        if token is None or not token.is_valid(match[2], datetime.now(UTC)):
            return None
        self._checked[text] = token
        return token

    def list(self) -> tuple[Token, ...]:
        """Return every token, the oldest first.

        Raises
        ------
        ConfigurationError
            When the file is not one of ours.

        """
        return tuple(sorted(self._read().tokens, key=lambda token: token.created))

    def create(
        self,
        *,
        roles: Sequence[Role],
        name: str = "",
        namespaces: Sequence[str] | None = None,
        lifetime: timedelta | None = None,
    ) -> tuple[Token, str]:
        """Make a token; return it with its text, which cannot be had again."""
        now = datetime.now(UTC)
        secret = secrets.token_urlsafe(32)
        token = Token(
            id=secrets.token_hex(6),
            name=name,
            roles=tuple(dict.fromkeys(roles)),
            namespaces=None if namespaces is None else tuple(namespaces),
            created=now,
            expires=None if lifetime is None else now + lifetime,
            digest=_digest(secret),
        )
        with self._changing() as tokens:
            tokens[token.id] = token
        return token, _text(token.id, secret)

    def revoke(self, token_id: str) -> Token:
        """Forget a token: it is refused within half a second; raise ``NotFound``."""
        with self._changing() as tokens:
            return _taken(tokens, token_id)

    def rotate(self, token_id: str, *, grace: timedelta) -> tuple[Token, str]:
        """Give a token a new secret; the old one is taken for the grace; raise ``NotFound``."""
        secret = secrets.token_urlsafe(32)
        with self._changing() as tokens:
            former = _taken(tokens, token_id)
            token = former.model_copy(
                update={
                    "digest": _digest(secret),
                    "former_digest": former.digest,
                    "former_expires": datetime.now(UTC) + grace,
                }
            )
            tokens[token_id] = token
        return token, _text(token_id, secret)

    def _refresh(self, *, at_once: bool = False) -> None:
        now = self._clock()
        if now - self._looked < _FRESH_S and not at_once:
            return
        self._looked = now
        self._checked.clear()  # what has expired meanwhile
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._known, self._stamp = {}, None
            return
        stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._known = {token.id: token for token in self._read().tokens}
            except ConfigurationError as error:
                # Nobody passes until the file is right again.
                self._known = {}
                log.error("%s", error)  # noqa: TRY400 - the message says all

    def _read(self) -> _File:
        try:
            return _File.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return _File()
        except ValidationError as error:
            raise ConfigurationError(
                f"{self._path}: expected the tokens of this program, format {_FORMAT}, got "
                f"something else ({error.error_count()} errors)",
                hint="restore the file, or delete it and create the tokens anew",
            ) from error

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Token]]:
        """Give out the tokens to be changed, alone; keep them durably."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(self._path.with_suffix(".lock")):
            tokens = {token.id: token for token in self._read().tokens}
            yield tokens
            _replace(self._path, _File(tokens=tuple(tokens.values())).model_dump(mode="json"))
        self._looked = -_FRESH_S


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _replace(path: Path, value: object) -> None:
    new = path.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(orjson.dumps(value, option=orjson.OPT_INDENT_2))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _taken(tokens: dict[str, Token], token_id: str) -> Token:
    try:
        return tokens.pop(token_id)
    except KeyError:
        raise NotFound(f"no token {token_id}", hint="sidelight token list shows them") from None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _text(token_id: str, secret: str) -> str:
    return f"sl_{token_id}_{secret}"
