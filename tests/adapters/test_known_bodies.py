"""The numbers of many bodies are parsed at once; each body says what it says alone."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.adapters._known_bodies import Shape, learned, parsed
from sidelight.adapters.dialects import DIALECTS, Half, read_payload

V1 = b'{"instances":[%b]}'
V2 = b'{"inputs":[{"name":"x","shape":[2],"datatype":"FP64","data":[%b]}]}'
BYTES = b'{"inputs":[{"name":"s","shape":[2],"datatype":"BYTES","data":[%b]}]}'

_brackets = st.sampled_from(["[", "]", "],[", "]],[[", "]],[", "],[["])
_others = st.sampled_from(["[1]", "[3],[4]", "5,6", "1", ",", "{", "}", '"', '"a"', "\\", " "])
_insides = st.lists(_brackets | _others, min_size=1, max_size=6).map("".join)


def _read(body: bytes) -> Half:
    return read_payload(body, "request", DIALECTS)


def _shape(pattern: bytes, usual: bytes) -> Shape:
    body = pattern % usual
    shape = learned(body, _read(body), [], _read)
    assert shape is not None
    return shape


def _check(bodies: Sequence[tuple[Shape, bytes]], *, is_nested: bool) -> None:
    found = [(shape, body, shape.cut(body)) for shape, body in bodies]
    cuts = [(shape, body, cut) for shape, body, cut in found if cut is not None]
    if not cuts:
        return
    lists = parsed([cut.fragments[0] for _, _, cut in cuts], is_nested=is_nested)
    for (shape, body, cut), numbers in zip(cuts, lists, strict=True):
        values = None if numbers is None else shape.values(cut, [numbers])
        if values is not None:
            half = _read(body)
            assert (half.rows, half.values, half.reason) == (*values, None)


@settings(max_examples=400)
@given(st.lists(_insides.map("[{}]".format) | st.just("[3],[4]"), min_size=2, max_size=4))
def test_lists_mean_the_same_whatever_is_parsed_with_them(insides: list[str]) -> None:
    shape = _shape(V1, b"[1.5],[2.5]")
    assert shape.is_nested
    _check([(shape, V1 % inside.encode()) for inside in insides], is_nested=True)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.booleans(), _insides | st.just("7,8")), min_size=2, max_size=4))
def test_arrays_mean_the_same_whatever_is_parsed_with_them(
    insides: list[tuple[bool, str]],
) -> None:
    numbers, texts = _shape(V2, b"1.5,2.5"), _shape(BYTES, b'"a","b"')
    bodies = [
        (texts, BYTES % inside.encode()) if is_text else (numbers, V2 % inside.encode())
        for is_text, inside in insides
    ]
    _check(bodies, is_nested=False)


@pytest.mark.parametrize(
    "inside", [b"[1],[[2]", b"[3]],[4]", b"[[5],[6]]", b"[5]],[6]],[[7],[8]", b"[1]]", b"[[1]"]
)
def test_lists_that_are_not_one_behind_the_other_are_not_recognised(inside: bytes) -> None:
    assert _shape(V1, b"[1.5],[2.5]").cut(V1 % inside) is None
