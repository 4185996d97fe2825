"""The few fields of a protobuf message that a capture needs, read without parsing the rest.

Writers put fields in the order of their numbers, and tensors come last: what is read here stands
in the first bytes of a message, whatever its size.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5
_MAX_VARINT_BYTES: Final = 10
_MAX_NAME_BYTES: Final = 256

# Of a response of the Open Inference Protocol, and of Triton's message of a stream around it.
_VERSION: Final = 2
_ID: Final = 3
_PARAMETERS: Final = 4
_WRAPPED: Final = 2
_LAST_FIELD: Final = 6
_LAST: Final = b"\x0a\x15triton_final_response\x12\x02\x08\x01"


class Called(NamedTuple):
    """What a request says of itself; empty where it says nothing."""

    model: bytes = b""
    version: bytes = b""
    id: bytes = b""


class Streamed(NamedTuple):
    """One answer of a stream: the message without Triton's wrapping, its id, whether it is last."""

    message: bytes
    id: bytes = b""
    is_last: bool = False
    is_error: bool = False


def called(message: bytes) -> Called:
    r"""Return model, version and id of a ``ModelInferRequest``; of garbage what there is.

    Examples
    --------
    >>> called(b"\n\x07flights\x1a\x011")
    Called(model=b'flights', version=b'', id=b'1')

    """
    found: dict[int, bytes] = {}
    try:
        for number, value in _fields(message):
            if number > _ID:
                break
            if len(value) <= _MAX_NAME_BYTES:
                found[number] = value
    except ValueError:
        pass
    return Called(found.get(1, b""), found.get(_VERSION, b""), found.get(_ID, b""))


def called_by_spec(message: bytes) -> Called:
    """Return model and version of a ``PredictRequest`` of TensorFlow Serving."""
    spec = {}
    try:
        for number, value in _fields(message):
            if number == 1:
                spec = dict(_fields(value))
            break
        version = dict(_fields(spec.get(_VERSION, b""))).get(1, b"")
    except ValueError:
        return Called()
    model = spec.get(1, b"")
    return Called(model if len(model) <= _MAX_NAME_BYTES else b"", version)


def streamed(message: bytes) -> Streamed:
    """Read one answer of ``ModelStreamInfer``, as Triton wraps it or as MLServer does not.

    The method's name does not tell which one it is. A wrapping has fields 1 and 2 only, and its
    second is a message; a version of a model, which stands there otherwise, is none.
    """
    try:
        return _unwrapped(message) or _answer(message)
    except ValueError:
        return Streamed(message)


def _unwrapped(message: bytes) -> Streamed | None:
    wrapped, is_error = None, False
    for number, value in _fields(message):
        if number > _WRAPPED:
            return None
        if number == _WRAPPED:
            wrapped = value
        else:
            is_error = bool(value)
    if wrapped is None:
        # An error text alone; an answer without an id and without tensors says nothing either.
        return Streamed(message, is_error=is_error)
    try:
        # To the end: what merely begins like a message is a version.
        if max((number for number, _ in _fields(wrapped)), default=0) > _LAST_FIELD:
            return None
    except ValueError:
        return None
    answer = _answer(wrapped)
    # The text of an error stands in the wrapping.
    return answer._replace(message=message, is_error=True) if is_error else answer


def _answer(message: bytes) -> Streamed:
    found = b""
    is_last = False
    for number, value in _fields(message):
        if number == _ID and len(value) <= _MAX_NAME_BYTES:
            found = value
        elif number == _PARAMETERS:
            is_last = is_last or value == _LAST
        elif number > _PARAMETERS:
            break
    return Streamed(message, found, is_last)


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and value of the outermost fields; values that are numbers as decimal text.

    Raises
    ------
    ValueError
        Where the bytes are no protobuf.

    """
    position, end = 0, len(message)
    while position < end:
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        value = b""
        if kind == _BYTES:
            size, position = _varint(message, position)
            value = message[position : position + size] if size <= end - position else b""
            position += size
        elif kind == _VARINT:
            plain, position = _varint(message, position)
            value = b"%d" % plain
        elif kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"protobuf: expected a wire type of 0, 1, 2 or 5, got {kind}")
        if position > end or not number:
            raise ValueError("protobuf: expected whole fields, got the beginning of one")
        yield number, value


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    for byte in message[position : position + _MAX_VARINT_BYTES]:
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:  # noqa: PLR2004 - the highest bit says that another follows
            return value, position
        shift += 7
    raise ValueError("protobuf: expected a number, got the beginning of one")
