"""Addresses of the proxy: where it listens, and the servers that it talks to."""

import re
from dataclasses import dataclass
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator

_PLAIN = re.compile(r"[\x21-\x7e]+")
_PORTS = {"http": 80, "https": 443}
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1", ""})


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen or to connect: a TCP address or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""
    is_tls: bool = False

    def __str__(self) -> str:
        """Give the address as it is written."""
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return self.host in _LOOPBACK

    @classmethod
    def read(cls, text: str) -> Self:
        """Read ``HOST:PORT`` or ``unix:PATH``; raise ``ValueError`` for anything else."""
        path = text.removeprefix("unix:")
        if path and path != text:
            return cls(path=path)
        host, colon, port = text.rpartition(":")
        # Without brackets a colon within the host is a mistake, or it is "unix:" alone.
        is_host = host and (":" not in host or (host[0] == "[" and host[-1] == "]"))
        is_port = port.isascii() and port.isdecimal() and int(port) < 1 << 16
        if not (colon and is_host and is_port):
            raise ValueError(f"expected HOST:PORT or unix:PATH, got {text!r}")
        return cls(host=host.strip("[]"), port=int(port))

    @classmethod
    def read_upstream(cls, text: str) -> Self:
        """Read ``http://HOST:PORT``, ``https://HOST:PORT`` or ``unix:PATH``."""
        if text.startswith("unix:"):
            return cls.read(text)
        expected = "http(s)://HOST:PORT or unix:PATH"
        scheme, host, port, path = _split(text, expected)
        if path.strip("/"):
            raise ValueError(f"expected no path behind HOST:PORT, got {text!r}")
        return cls(host=host, port=port or _PORTS[scheme], is_tls=scheme == "https")


def http_url(text: str) -> str:
    """Return an address of HTTP as it is when it can be used; raise ``ValueError`` otherwise."""
    _split(text, "http(s)://HOST:PORT/")
    if not _PLAIN.fullmatch(text):
        raise ValueError(f"expected an address without blanks and percent-encoded, got {text!r}")
    return text


def _split(text: str, expected: str) -> tuple[str, str, int | None, str]:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"expected {expected}, got something else ({error})") from error
    if parts.username is not None or parts.password is not None:
        # Neither is shown: a log is no place for a password.
        raise ValueError(f"expected {expected} without user and password, got one with them")
    if parts.scheme not in _PORTS or not host:
        raise ValueError(f"expected {expected}, got {text!r}")
    return parts.scheme, host, port, parts.path


def _listening(text: str) -> str:
    Address.read(text)
    return text


def _reached(text: str) -> str:
    Address.read_upstream(text)
    return text


# Texts, because the environment gives texts: a value of a class would be asked for as JSON there.
ListenAddress = Annotated[str, AfterValidator(_listening)]
UpstreamAddress = Annotated[str, AfterValidator(_reached)]
HttpUrl = Annotated[str, AfterValidator(http_url)]
