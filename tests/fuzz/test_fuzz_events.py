"""The target of the fuzzer over the golden samples, and over what chance makes of them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.fuzz_events import UnforeseenError, check, seeds

from sidelight.adapters import _decoding

SEEDS = seeds()
EDITS = st.lists(
    st.tuples(
        st.integers(0, 1 << 14),
        st.integers(0, 12),
        st.sampled_from(
            [
                *(b"", b"\0", b"\xff\xfe", b'"', b"[", b"]", b"{", b"}", b",", b"\r\n", b"%00"),
                *(b"-1", b"9" * 40, b"1e999", b"null", b"NaN", b"[" * 2000, b'{"data":' * 2000),
            ]
        )
        | st.binary(max_size=6),
    ),
    max_size=5,
)


@pytest.mark.parametrize("name", SEEDS)
def test_samples_are_taken_without_a_finding(name: str) -> None:
    check(SEEDS[name])


@given(st.sampled_from(sorted(SEEDS)), EDITS)
@settings(max_examples=1500, deadline=None)
def test_samples_that_were_edited_are_taken_without_a_finding(
    name: str, edits: list[tuple[int, int, bytes]]
) -> None:
    data = bytearray(SEEDS[name])
    for place, length, inserted in edits:
        start = place % (len(data) + 1)
        data[start : start + length] = inserted

    check(bytes(data))


def test_what_a_dialect_did_not_foresee_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def unforeseen(*_: object, **__: object) -> None:
        raise LookupError("nobody thought of it")

    monkeypatch.setattr(_decoding, "read_payload", unforeseen)

    with pytest.raises(UnforeseenError, match="did not foresee"):
        check(SEEDS["ks13_v2_request_json-0"])
