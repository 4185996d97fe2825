"""Ids of requests: made, read from heads, read from bodies."""

import pytest

from sidelight.logger._request_id import RequestIds, id_in_body, id_in_head

_LONG = b'"inputs": [' + b"0.5, " * 2_000 + b"1]"


def test_ids_differ_within_and_between_makers() -> None:
    makers = RequestIds(), RequestIds()

    ids = [maker.new() for maker in makers for _ in range(100)]

    assert len(set(ids)) == 200
    assert all(one.isascii() for one in ids)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b'{"id": "a", "inputs": []}', b"a", id="first"),
        pytest.param(b'{"inputs": [], "id": "a"}', b"a", id="last"),
        pytest.param(b'{"id": "a", ' + _LONG + b"}", b"a", id="first of a long one"),
        pytest.param(b'{"x": 1, "id": "a", ' + _LONG + b"}", b"a", id="before the tensors"),
        pytest.param(b"{" + _LONG + b', "id": "a"}', b"a", id="behind the tensors"),
        pytest.param(b"{" + _LONG + b', "id": "a", ' + _LONG + b"}", b"", id="between tensors"),
        pytest.param(b'{"x": {"id": "a"}}', b"", id="of another object"),
        pytest.param(b'{"x": "id"}', b"", id="a value"),
        pytest.param(b'{"id": ""}', b"", id="empty"),
        pytest.param(b'{"id": 5}', b"", id="a number"),
        pytest.param(b'{"id": "a\\nb"}', b"", id="unprintable"),
        pytest.param(b'{"id": "\xff"}', b"", id="no UTF-8"),
        pytest.param(b'{"x": 1, "id": "a"', b"", id="half"),
        pytest.param(b'{"x": 1, "id": "a", "y": "' + b"y" * 70_000 + b'"}', b"", id="too long"),
        pytest.param(b"", b"", id="nothing"),
    ],
)
def test_id_of_a_body_is_the_one_of_its_outermost_object(body: bytes, expected: bytes) -> None:
    assert id_in_body(body) == expected


def test_heads_are_searched_in_the_order_of_their_weight() -> None:
    head = b"POST / HTTP/1.1\r\nSeldon-Puid: p\r\nCe-Id: c\r\nx-request-ID:  r \r\n\r\n"

    assert id_in_head(head, head.lower()) == b"r"
    assert id_in_head(b"POST / HTTP/1.1\r\n\r\n", b"post / http/1.1\r\n\r\n") == b""
