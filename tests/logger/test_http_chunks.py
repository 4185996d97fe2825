"""The chunked transfer coding."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.logger._http_chunks import Chunks
from sidelight.logger._http_head import Refused

chunk = st.tuples(
    st.binary(min_size=1, max_size=30), st.sampled_from([b"", b";a=b", b' ; q="x y"'])
)
trailers = st.sampled_from([b"", b"X-Sum: 1\r\n", b"A: b\r\nC:\r\n"])


def _framed(chunks: list[tuple[bytes, bytes]], trailer: bytes) -> bytes:
    parts = [b"%X%b\r\n%b\r\n" % (len(data), extension, data) for data, extension in chunks]
    return b"".join(parts) + b"0\r\n" + trailer + b"\r\n"


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


def _feed_bytes(reader: Chunks, data: bytes) -> None:
    for byte in data:
        reader.feed(bytes([byte]))


@given(st.lists(chunk, max_size=6), trailers, st.lists(st.integers(0, 400)), st.binary(max_size=9))
def test_body_is_the_same_wherever_it_is_cut(
    chunks: list[tuple[bytes, bytes]], trailer: bytes, cuts: list[int], after: bytes
) -> None:
    framed = _framed(chunks, trailer)
    reader = Chunks()
    passed = b""
    body = b""
    rest = b""

    for piece in _pieces(framed + after, cuts):
        if reader.ended:
            rest += piece
            continue
        out, parts = reader.feed(piece)
        passed += out
        body += b"".join(parts)
        rest += reader.rest

    assert reader.ended
    assert passed == framed
    assert body == b"".join(data for data, _ in chunks)
    assert rest == after


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"x\r\n", id="no number"),
        pytest.param(b"\r\n", id="no size"),
        pytest.param(b"0x5\r\nhello\r\n", id="a prefix"),
        pytest.param(b"-5\r\nhello\r\n", id="a sign"),
        pytest.param(b" 5\r\nhello\r\n", id="a blank before"),
        pytest.param(b"5 \r\nhello\r\n", id="a blank after"),
        pytest.param(b"5\nhello\r\n\r\n", id="a lone LF after the size"),
        pytest.param(b"5;a\nb\r\nhello\r\n", id="a lone LF in an extension"),
        pytest.param(b"5;a\rb\r\nhello\r\n", id="a lone CR in an extension"),
        pytest.param(b"10000000000000005\r\nhello\r\n", id="a size over 64 bits"),
        pytest.param(b"5\r\nhelloX\r\n", id="more data than announced"),
        pytest.param(b"5\r\nhello0\r\n\r\n", id="no line end after the data"),
        pytest.param(b"0\r\nno trailer\r\n\r\n", id="a trailer without colon"),
        pytest.param(b"0\r\nX : y\r\n\r\n", id="a trailer with a blank before the colon"),
        pytest.param(b"0\r\nX: y\r\n z\r\n\r\n", id="a folded trailer"),
        pytest.param(b"5;" + b"a" * 5000 + b"\r\n", id="a long extension"),
        pytest.param(b"5;" + b"a" * 5000, id="a long extension without end"),
        pytest.param(b"0\r\n" + b"X: y\r\n" * 20000, id="endless trailers"),
    ],
)
def test_bad_framing_is_refused(data: bytes) -> None:
    with pytest.raises(Refused) as refused:
        Chunks().feed(data)

    assert refused.value.status == 400


@pytest.mark.parametrize("data", [b"5\nhello", b"5\r\nhelloX"])
def test_bad_framing_is_refused_byte_by_byte_as_well(data: bytes) -> None:
    reader = Chunks()

    with pytest.raises(Refused):
        _feed_bytes(reader, data + b"\r\n\r\n")


def test_unchecked_framing_is_held_back() -> None:
    reader = Chunks()

    assert reader.feed(b"5\r\nhe") == (b"5\r\nhe", [b"he"])
    assert reader.feed(b"llo\r\n3;unfini") == (b"llo\r\n", [b"llo"])
