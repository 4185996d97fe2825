"""Requests, answers and problem documents."""

import http.client
import io
import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.logger._http import Request, problem, response


class _Socket:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def _read(data: bytes) -> http.client.HTTPResponse:
    """Have the answer read by the standard library."""
    answer = http.client.HTTPResponse(cast("Any", _Socket(data)))
    answer.begin()
    return answer


_HEAD = b"POST /a/b?c=d HTTP/1.1\r\nHost: x\r\nX-Name: \t one \r\nx-name: two\r\nEmpty:\r\n\r\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(b"host", b"x", id="first line"),
        pytest.param(b"X-NAME", b"one", id="any case, first one, stripped"),
        pytest.param(b"Empty", b"", id="empty is not missing"),
        pytest.param(b"Name", None, id="the end of a name is not a name"),
        pytest.param(b"X-Nam", None, id="the beginning of a name is not a name"),
        pytest.param(b"one", None, id="a value is not a name"),
    ],
)
def test_header_is_found_by_name(name: bytes, value: bytes | None) -> None:
    request = Request(b"POST", b"/a/b?c=d", _HEAD, b"")

    assert request.header(name) == value


def test_route_is_the_target_without_query() -> None:
    assert Request(b"POST", b"/a/b?c=d", _HEAD, b"").route == b"/a/b"


def test_response_is_read_by_the_standard_library() -> None:
    answer = _read(response(200, body=b"ok", content_type=b"text/x", headers=[(b"a", b"b")]))

    assert (answer.status, answer.reason) == (200, "OK")
    assert answer.getheaders() == [("content-type", "text/x"), ("a", "b"), ("content-length", "2")]
    assert answer.read() == b"ok"


@pytest.mark.parametrize("status", [204, 304])
def test_response_that_has_no_body_has_no_length(status: int) -> None:
    assert b"content-length" not in response(status, body=b"ignored")


def test_response_of_an_unknown_status_has_an_empty_reason() -> None:
    assert response(299).startswith(b"HTTP/1.1 299 \r\n")


def test_problem_names_what_was_expected_and_got() -> None:
    answer = _read(problem(400, "no", expected="x", got=b"y", hint="z"))

    assert answer.getheader("content-type") == "application/problem+json"
    assert json.loads(answer.read()) == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": "no",
        "expected": "x",
        "got": "y",
        "hint": "z",
    }


@given(st.binary(max_size=300))
def test_problem_echoes_nothing_raw(got: bytes) -> None:
    head, _, body = problem(400, "no", got=got).partition(b"\r\n\r\n")

    assert all(0x20 <= byte < 0x7F for byte in body)
    assert b"<" not in body
    assert head.count(b"\r\n") == 2
    assert json.loads(body)["got"] == got.decode("latin-1")[:200]
