"""What is kept of the messages of a call: one bare, several framed, bounded, with a digest."""

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.logger._grpc_body import GrpcBody, GrpcCounts, GrpcLimits
from sidelight.logger._grpc_frames import frame, frames
from sidelight.logger._grpc_head import FRAMED, PROTOBUF

MESSAGES = st.lists(st.binary(max_size=20), max_size=6)


def whole(messages: list[bytes]) -> bytes:
    return b"".join(map(frame, messages)) if len(messages) > 1 else b"".join(messages)


@given(MESSAGES, st.integers(1, 60), st.integers(1, 60))
def test_what_is_kept_and_what_is_cut_add_up(
    messages: list[bytes], limit: int, limit_of_all: int
) -> None:
    counts = GrpcCounts()
    body = GrpcBody(GrpcLimits(capture_limit=limit, max_captured_bytes=limit_of_all), counts)
    for message in messages:
        body.add(message)
        assert counts.captured_bytes <= min(limit, limit_of_all)
    taken = body.take()
    expected = whole(messages)

    assert taken.media == (FRAMED if len(messages) > 1 else PROTOBUF)
    assert len(taken.data) + taken.cut == len(expected)
    assert expected.startswith(taken.data)
    assert taken.digest == (hashlib.sha256(expected).digest() if taken.cut else b"")
    assert counts.captured_bytes == 0
    if sum(map(len, messages)) <= min(limit, limit_of_all):
        assert taken.data == expected


@given(MESSAGES)
def test_frames_are_read_as_they_were_written(messages: list[bytes]) -> None:
    read = list(frames(b"".join(map(frame, messages))))

    assert [item.message for item in read] == messages
    assert not any(item.is_compressed for item in read)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\x00\x00", "a head of 5 bytes, got 2"),
        (b"\x02\x00\x00\x00\x00", "a flag of 0 or 1, got 2"),
        (b"\x00\x00\x00\x00\x05abc", "5 bytes, got 3"),
    ],
)
def test_what_is_no_frame_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(frames(body))


@pytest.mark.parametrize(
    "name", ["capture_limit", "max_captured_bytes", "max_unfinished", "settle_s"]
)
def test_bounds_are_positive(name: str) -> None:
    bound: dict[str, Any] = {name: 0}

    with pytest.raises(ValueError, match=f"{name}: expected a positive number, got 0"):
        GrpcLimits(**bound)
