"""Sealed bodies: opened, they are the request byte for byte; without a key, a part is gone."""

import secrets
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.logger._sealed_body import (
    Key,
    Piece,
    SealedBody,
    SealedBodyError,
    open_body,
    seal_batch,
    seal_request,
)
from sidelight.logger._sealed_marks import ERASED_HEAD, ERASED_MEMBER, is_sealed


class _Keys:
    def __init__(self) -> None:
        self.known: dict[int, bytes] = {}

    def fresh(self, n: int = 1) -> list[Key]:
        keys = [(len(self.known) + number, secrets.token_bytes(32)) for number in range(n)]
        self.known.update(keys)
        return keys

    def find(self, numbers: Sequence[int]) -> list[bytes] | None:
        found = [self.known.get(number) for number in numbers]
        return None if None in found else [key for key in found if key is not None]


@st.composite
def _batches(draw: st.DrawFn) -> tuple[bytes, list[Piece]]:
    texts = draw(st.lists(st.tuples(st.binary(max_size=6), st.binary(max_size=20)), max_size=5))
    body, pieces = b"", []
    for number, (gap, member) in enumerate(texts):
        start = len(body) + len(gap)
        body += gap + member
        pieces.append(Piece(number=2 * number, start=start, end=len(body)))
    return body + draw(st.binary(max_size=6)), pieces


@given(head=st.binary(max_size=50), body=st.binary(max_size=200), n_keys=st.integers(1, 4))
def test_opened_request_is_what_was_sealed(head: bytes, body: bytes, n_keys: int) -> None:
    keys = _Keys()
    stored = seal_request(head, body, keys.fresh(n_keys)).encode()

    assert is_sealed(stored)
    assert open_body(SealedBody.decode(stored), keys.find) == (head, body, frozenset())


@given(_batches(), st.binary(max_size=50), st.sets(st.integers(0, 4)))
def test_opened_batch_lacks_the_members_whose_key_is_gone_and_nothing_else(
    batch: tuple[bytes, list[Piece]], head: bytes, gone: set[int]
) -> None:
    body, pieces = batch
    keys = _Keys()
    given_keys = [keys.fresh() for _ in range(len(pieces) + 1)]
    stored = seal_batch(head, body, pieces, given_keys).encode()
    whole = open_body(SealedBody.decode(stored), keys.find)
    expected, at = b"", 0
    for order, piece in enumerate(pieces):
        text = body[piece.start : piece.end]
        expected += body[at : piece.start] + (ERASED_MEMBER if order in gone else text)
        at = piece.end
        if order in gone:
            del keys.known[given_keys[order + 1][0][0]]

    assert whole == (head, body, frozenset())
    erased = frozenset(2 * order for order in gone if order < len(pieces))
    assert open_body(SealedBody.decode(stored), keys.find) == (head, expected + body[at:], erased)


def test_part_of_several_keys_is_gone_with_any_of_them() -> None:
    keys = _Keys()
    sealed = seal_request(b"head", b"body", keys.fresh(3))
    del keys.known[1]

    assert open_body(sealed, keys.find) == (ERASED_HEAD, b"", frozenset({0}))


def test_part_may_have_more_keys_than_a_short_number_can_count() -> None:
    keys = _Keys()
    stored = seal_request(b"head", b"body", keys.fresh(70_000)).encode()

    assert open_body(SealedBody.decode(stored), keys.find) == (b"head", b"body", frozenset())


def test_nothing_of_the_request_is_in_the_stored_bytes() -> None:
    keys = _Keys()
    stored = seal_batch(
        b"POST /events?marker HTTP/1.1\r\n\r\n",
        b'[{"marker": 1}]',
        [Piece(number=0, start=1, end=14)],
        [keys.fresh(), keys.fresh()],
    ).encode()

    assert b"marker" not in stored


@given(st.binary(max_size=80), st.integers(0, 400), st.integers(1, 255))
def test_changed_bytes_never_open_to_something_else(body: bytes, place: int, flip: int) -> None:
    keys = _Keys()
    stored = bytearray(seal_request(b"head", body, keys.fresh()).encode())
    stored[place % len(stored)] ^= flip

    try:
        opened = open_body(SealedBody.decode(bytes(stored)), keys.find)
    except SealedBodyError:
        return
    # Another number of a key: that one is not there.
    assert opened[0] == ERASED_HEAD


@given(st.binary(max_size=60))
def test_other_bytes_are_no_sealed_body(data: bytes) -> None:
    with pytest.raises(SealedBodyError):
        SealedBody.decode(data)
