"""One URL of a live model, asked with JSON over HTTP."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import orjson

from sidelight.explainers import BadAnswer, ModelUnavailable, RowError

if TYPE_CHECKING:
    # Imported where a model is called: a tenth of a second of a start that most processes of the
    # service, which import this package and call none, need not spend.
    import httpx

# What a server says about an error is shown to the one who asked, but not a whole page of it.
_SAID_CHARACTERS = 200
_REFUSED = 400
_FAILED = 500
_OK = 200


def http_client() -> "httpx.Client":
    """Client for the live models of a process; safe for threads, closed by its owner.

    It reads no proxy settings from the environment and follows no redirects: synthetic calls go
    to the configured address or nowhere.
    """
    import httpx  # noqa: PLC0415

    return httpx.Client(trust_env=False, follow_redirects=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a model is asked, and how each call is marked as an explainer's.

    Every call carries ``Sidelight-Skip: true``, ``Seldon-Skip-Logging: true`` and a ``Ce-Id`` of
    its own that begins with ``explain-``, so that no logger takes it for traffic
    (PROTOCOLS section f).

    Parameters
    ----------
    client : httpx.Client
        Shared by all endpoints; not closed here.
    url : str
        Full address of the inference route.
    explanation_id : str
        Calls are named ``explain-<explanation_id>-<number>``.
    max_response_bytes : int, default 16 MiB
        Larger answers are refused unread.

    """

    client: "httpx.Client"
    url: str
    explanation_id: str
    max_response_bytes: int = 16 << 20
    _numbers: Iterator[int] = field(default_factory=count, repr=False)

    def ask(self, body: dict[str, Any], *, timeout_s: float, named: bool = False) -> dict[str, Any]:
        """Post a JSON object and return the object that answers it.

        Parameters
        ----------
        timeout_s : float
            Seconds until the answer must be there.
        named : bool, default False
            Whether the protocol has a member ``id`` for the name of the call.

        Raises
        ------
        ModelUnavailable
            If nothing answers, not in time, or with a status of 500 or above.
        BadAnswer
            If the status is another one than 200, or the body is too large or no JSON object.
        RowError
            If a value cannot be written as JSON.

        """
        call_id = f"explain-{self.explanation_id}-{next(self._numbers)}"
        try:
            content = orjson.dumps({"id": call_id, **body} if named else body)
        except TypeError as error:
            got = str(error)
            raise RowError("feature value", expected="a value that JSON has", got=got) from error
        return _parsed(*self._post(content, call_id, timeout_s))

    def _post(self, content: bytes, call_id: str, timeout_s: float) -> tuple[int, bytes]:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            # Nothing is inflated here, so that the bound on the size holds.
            "Accept-Encoding": "identity",
            "Sidelight-Skip": "true",
            "Seldon-Skip-Logging": "true",
            "Ce-Id": call_id,
        }
        import httpx  # noqa: PLC0415

        until = time.monotonic() + timeout_s
        try:
            with self.client.stream(
                "POST", self.url, content=content, headers=headers, timeout=timeout_s
            ) as response:
                return response.status_code, self._read(response, until)
        except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise self._unavailable("no connection in time", reached=False) from error
        except httpx.TimeoutException as error:
            raise self._unavailable(f"no answer within {timeout_s:.1f} s") from error
        except (httpx.ConnectError, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            again = isinstance(error, httpx.ConnectError)
            raise self._unavailable(str(error), reached=False, again=again) from error
        except httpx.TransportError as error:
            # Broken in the middle: prediction has no effect, so the same call may be repeated.
            raise self._unavailable(str(error) or "connection broken", again=True) from error

    def _read(self, response: "httpx.Response", until: float) -> bytes:
        coding = response.headers.get("content-encoding", "identity")
        if coding != "identity":
            raise BadAnswer("content encoding of the answer", expected="none", got=coding)
        parts, size = [], 0
        for part in response.iter_bytes():
            size += len(part)
            if size > self.max_response_bytes:
                expected = f"at most {self.max_response_bytes} bytes"
                raise BadAnswer("the model's answer", expected=expected, got="more")
            if time.monotonic() > until:
                raise self._unavailable("the answer came too slowly")
            parts.append(part)
        return b"".join(parts)

    def _unavailable(
        self, reason: str, *, reached: bool = True, again: bool = False
    ) -> ModelUnavailable:
        message = f"expected an answer of the model at {self.url}, got: {reason}"
        return ModelUnavailable(message, reached=reached, again=again)


def _parsed(status: int, content: bytes) -> dict[str, Any]:
    if status >= _FAILED:
        raise ModelUnavailable(f"the model failed with status {status}: {_said(content)}")
    if status != _OK:
        hint = "; are the layout and the name right?" if status >= _REFUSED else ""
        got = f"{status}: {_said(content)}{hint}"
        raise BadAnswer("status of the model's answer", expected="200", got=got)
    try:
        value = _loaded(content)
    except (ValueError, RecursionError) as error:
        got = f"{len(content)} other bytes"
        raise BadAnswer("the model's answer", expected="JSON", got=got) from error
    if not isinstance(value, dict):
        got = type(value).__name__
        raise BadAnswer("the model's answer", expected="a JSON object", got=got)
    return value


def _loaded(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        # NaN and Infinity are legal for V1's servers; they are refused as predictions later.
        return json.loads(content)


def _said(content: bytes) -> str:
    text = content[: 4 * _SAID_CHARACTERS].decode("utf-8", "replace")
    visible = "".join(character if character.isprintable() else " " for character in text)
    return visible[:_SAID_CHARACTERS].strip() or "nothing"
