from typing import Any

import pytest

from sidelight.logger import Selection


def captures(selection: Selection, target: str, method: bytes = b"POST", head: bytes = b"") -> bool:
    first, second = (selection.captures(method, target.encode(), head) for _ in range(2))
    assert first == second  # as decided, and as remembered
    return first


@pytest.mark.parametrize(
    "target",
    [
        *("/healthz", "/v2/health/live", "/v2/health/ready?full=1", "/v2/models/m/ready"),
        *("/metrics", "http://models/ping", "/v2/health/status"),
    ],
)
def test_probes_are_not_captured(target: str) -> None:
    assert not captures(Selection(), target)


def test_what_merely_looks_like_a_probe_is_captured() -> None:
    assert captures(Selection(), "/v2/models/ready/infer")
    assert captures(Selection(), "/already")
    assert captures(Selection(skip_paths=()), "/healthz")


def test_only_named_paths_are_captured_and_skipped_ones_win() -> None:
    selection = Selection(paths=("/v2/*", "/in?oke"), skip_paths=("/v2/internal/*",))

    assert captures(selection, "/v2/models/m/infer?path=/v1/")
    assert captures(selection, "/invoke")
    assert not captures(selection, "/v1/models/m:predict?path=/v2/")
    assert not captures(selection, "/v2/internal/x")


def test_methods_that_read_are_not_captured_unless_it_is_said() -> None:
    for method in (b"GET", b"HEAD", b"OPTIONS"):
        assert not captures(Selection(), "/v2/models/m/infer", method)
    assert captures(Selection(skip_methods=("HEAD",)), "/v2/models/m/infer", b"GET")


@pytest.mark.parametrize(
    ("line", "is_captured"),
    [
        (b"Sidelight-Skip: true", False),
        (b"seldon-skip-logging:1", False),
        (b"Seldon-Skip-Logging: ON ", False),
        (b"Sidelight-Skip: false", True),
        (b"X-Sidelight-Skip: true", True),
    ],
)
def test_marks_are_obeyed_on_a_path_that_is_known_as_well(line: bytes, is_captured: bool) -> None:  # noqa: FBT001
    selection = Selection()
    target = b"/v2/models/m/infer"
    assert selection.captures(b"POST", target, b"POST / HTTP/1.1\r\n\r\n")

    head = b"POST / HTTP/1.1\r\nHost: m\r\n%b\r\nZ: z\r\n\r\n" % line

    assert selection.captures(b"POST", target, head) is is_captured


def test_paths_without_end_do_not_fill_the_memory() -> None:
    selection = Selection()
    for number in range(3000):
        selection.captures(b"POST", b"/%d" % number, b"")
    selection.captures(b"POST", b"/" + b"x" * 10_000, b"")

    assert len(selection._known) <= 1024
    assert max(len(target) for _, target in selection._known) < 1000


@pytest.mark.parametrize("fields", [{"paths": ()}, {"paths": ("",)}, {"skip_methods": ("",)}])
def test_an_empty_pattern_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        Selection(**fields)
