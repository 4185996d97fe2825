import hashlib

from hypothesis import given
from hypothesis import strategies as st

from sidelight.logger._body_copy import BodyCopy, CopyBudget


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(0, 120), st.integers(0, 120))
def test_a_copy_is_the_beginning_and_the_rest_is_counted_and_digested(
    parts: list[bytes], limit: int, budget: int
) -> None:
    whole = b"".join(parts)
    shared = CopyBudget(budget)
    copy = BodyCopy(limit, shared)
    for part in parts:
        copy.add(part)

    kept_bytes = min(len(whole), limit, budget)
    assert copy.size == kept_bytes
    assert copy.cut == len(whole) - kept_bytes
    assert copy.digest == (hashlib.sha256(whole).digest() if copy.cut else b"")
    assert copy.take() == whole[:kept_bytes]
    assert shared.grant(budget) == budget


def test_what_one_body_takes_another_has_not() -> None:
    budget = CopyBudget(10)
    first, second = BodyCopy(100, budget), BodyCopy(100, budget)
    first.add(b"1234567")
    second.add(b"abcdef")
    first.add(b"8")

    assert first.take() == b"1234567"
    assert second.take() == b"abc"
    assert (first.cut, second.cut) == (1, 3)


def test_a_body_of_one_piece_is_not_copied_again() -> None:
    piece = b"x" * 1000
    copy = BodyCopy(2000, CopyBudget(2000))
    copy.add(piece)

    assert copy.peek() is piece
    assert copy.take() is piece
