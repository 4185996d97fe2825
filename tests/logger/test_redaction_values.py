import base64
import hashlib
import hmac
import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.logger import RedactionRule
from sidelight.logger._binary_tensors import decode, encode
from sidelight.logger._redaction_values import Pseudonyms, canonical, change_of, number_text

KEY = b"0123456789abcdef"
PSEUDONYMS = Pseudonyms(KEY)


def changed(value: Any, **fields: Any) -> Any:
    return change_of(RedactionRule(column="x", **fields), PSEUDONYMS)(value)


def test_a_pseudonym_is_the_hmac_of_the_text() -> None:
    expected = hmac.new(KEY, b"Ada", hashlib.sha256).digest()

    assert PSEUDONYMS.of("Ada") == expected.hex()
    spelled = Pseudonyms(KEY, "base64url").of("Ada")
    assert spelled == base64.urlsafe_b64encode(expected).decode().rstrip("=")
    assert Pseudonyms(b"another-key-of16").of("Ada") != expected.hex()


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_text_of_a_number_gives_the_number(value: float) -> None:
    assert float(json.loads(number_text(value))) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        # RFC 8785, appendix B.
        (struct.unpack(">d", bytes.fromhex("0000000000000001"))[0], "5e-324"),
        (struct.unpack(">d", bytes.fromhex("7fefffffffffffff"))[0], "1.7976931348623157e+308"),
        (struct.unpack(">d", bytes.fromhex("4340000000000000"))[0], "9007199254740992"),
        (struct.unpack(">d", bytes.fromhex("44b52d02c7e14af6"))[0], "1e+23"),
        (struct.unpack(">d", bytes.fromhex("444b1ae4d6e2ef4f"))[0], "999999999999999900000"),
        (struct.unpack(">d", bytes.fromhex("3eb0c6f7a0b5ed8d"))[0], "0.000001"),
        (struct.unpack(">d", bytes.fromhex("41b3de4355555553"))[0], "333333333.3333332"),
        (-0.0, "0"),
        (1 << 70, "1180591620717411303424"),
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
    ],
)
def test_numbers_are_written_as_rfc_8785_does(value: float, text: str) -> None:
    assert number_text(value) == text


def _digits(text: str) -> str:
    return text.split("e", maxsplit=1)[0].replace(".", "").strip("-0")


@pytest.mark.parametrize(("datatype", "kind"), [("FP32", np.float32), ("FP16", np.float16)])
@given(bits=st.integers(0, 0xFFFFFFFF))
def test_a_narrow_float_is_hashed_as_the_number_that_was_meant(
    datatype: str, kind: Any, bits: int
) -> None:
    size = np.dtype(kind).itemsize
    (value,) = decode(datatype, bits.to_bytes(4, "little")[:size])
    if not math.isfinite(value) or value == 0:  # zero has no sign as text
        return

    text = number_text(value, datatype)

    assert encode(datatype, [float(text)]) == encode(datatype, [value])
    shortest = np.format_float_scientific(kind(value), unique=True, trim="-")
    assert len(_digits(text)) <= len(_digits(shortest))


@given(st.floats(-1e30, 1e30), st.integers(1, 5))
def test_a_number_of_few_digits_is_the_same_as_json_and_as_bytes(value: float, digits: int) -> None:
    few = float(f"{value:.{digits}g}")
    (stored,) = decode("FP32", encode("FP32", [few]))

    if few == 0 or abs(few) > 1e-30:
        assert canonical(stored, "FP32") == canonical(few)


@given(st.integers(-(1 << 53), 1 << 53))
def test_a_whole_number_is_the_same_whatever_its_type(value: int) -> None:
    texts = {canonical(value), canonical(float(value)), canonical(str(value))}

    assert texts == {str(value).encode()}


@given(st.binary(max_size=20))
def test_bytes_are_the_same_in_base64(value: bytes) -> None:
    assert canonical({"b64": base64.b64encode(value).decode()}) == value


def test_an_object_is_hashed_whatever_the_order_of_its_keys() -> None:
    assert canonical({"b": [1, {"d": 1, "c": None}], "a": True}) == (
        b'{"a":true,"b":[1,{"c":null,"d":1}]}'
    )
    assert canonical({"b64": 7}) == b'{"b64":7}'


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((-3, 0), (0, 0), (17.9, 0), (18, 18), (64.5, 18), (65, 65), (1e9, 65)),
        *((None, None), ("18", None), (True, None), (math.nan, None), (math.inf, None), ({}, None)),
    ],
)
def test_a_number_becomes_the_lower_bound_of_its_bucket(value: Any, expected: Any) -> None:
    found = changed(value, action="bucket", edges=(0, 18, 65.0))

    assert found == expected
    assert isinstance(found, (int, type(None)))


@pytest.mark.parametrize(
    ("value", "fields", "expected"),
    [
        (17, {"step": 5}, 15),
        (18, {"step": 5}, 20),
        (0.27, {"step": 0.1}, 0.3),
        (-0.27, {"step": 0.1}, -0.3),
        (1.26, {"digits": 1}, 1.3),
        (1234, {"digits": -2}, 1200),
        ("1.26", {"digits": 1}, None),
        (False, {"step": 1}, None),
        (math.inf, {"step": 1}, None),
        (1e300, {"step": 1e-100}, None),
        (10**400, {"step": 0.5}, None),
        (1.7e308, {"digits": -308}, None),
        (10**400, {"digits": -400}, 10**400),
    ],
)
def test_a_number_is_rounded(value: Any, fields: dict[str, Any], expected: Any) -> None:
    assert changed(value, action="round", **fields) == expected


def test_of_a_text_the_beginning_stays() -> None:
    assert changed("Ärger", action="truncate", length=2) == "Är"
    assert changed("Ä".encode() + b"\xff\xff", action="truncate", length=2) == "Ä\ufffd"
    assert changed("abc", action="truncate", length=0) == ""
    assert changed(12345, action="truncate", length=2) is None


def test_lists_keep_their_form_and_objects_do_not() -> None:
    assert changed([[1, {"a": 2}], []], action="mask", text="-") == [["-", "-"], []]
    assert changed([None, "a"], action="hmac") == [None, PSEUDONYMS.of("a")]
