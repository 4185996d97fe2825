"""What traffic tells of a deployment: grows with it, and forgets nothing at a restart."""

from typing import Any

import pytest


def _entry(folder: Any, name: str = "prod/flights") -> dict[str, Any]:
    value: dict[str, Any] = folder.documents.get("deployments", name)
    return value


def test_bounds_versions_and_rows_grow_with_the_traffic(folder: Any) -> None:
    for minutes, version in ((5, "v2"), (1, "v1"), (9, "v2")):
        folder.ask([[1, "f"], [2, "m"]], minutes=minutes, version=version)
        folder.work()
        folder.begin()

    entry = _entry(folder)

    assert entry["rows_seen"] == 6
    assert entry["versions"] == ["v2", "v1"]
    assert entry["first_seen"] == "2013-01-01T00:01:00.000000Z"
    assert entry["last_seen"] == "2013-01-01T00:09:00.000000Z"


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_nobody_understood_leaves_no_columns(folder: Any, place: int, restarts: bool) -> None:  # noqa: FBT001
    for number in range(3):
        if number == place:
            for request_id, broken in (("get", b""), ("bad", b"{"), ("old", b"\xff\xfe")):
                folder.half("request", broken, request_id=request_id)
                folder.half("response", b"what?", request_id=request_id)
        folder.half("request", {"instances": [[1, 2.5]]}, request_id=f"r{number}")
        folder.half("response", {"predictions": [7]}, request_id=f"r{number}")
        folder.work()
        if restarts:
            folder.begin()

    columns = [(column["name"], column["kind"]) for column in _entry(folder)["schema"]["columns"]]

    assert columns == [("f0", "numeric"), ("f1", "numeric"), ("y", "numeric")]
    assert _entry(folder)["rows_seen"] == 6


def test_text_alone_is_one_feature(folder: Any) -> None:
    folder.half("request", b"how do you do", request_id="r")
    folder.half("response", {"predictions": [7]}, request_id="r")
    folder.work()

    names = [column["name"] for column in _entry(folder)["schema"]["columns"]]

    assert names == ["f0", "y"]


def test_deployments_are_kept_apart(folder: Any) -> None:
    folder.ask([[1, "f"]], deployment="a/m")
    folder.ask([[1, "f"], [2, "f"]], deployment="b/m")
    folder.work()

    assert (_entry(folder, "a/m")["rows_seen"], _entry(folder, "b/m")["rows_seen"]) == (1, 2)


def test_late_half_is_no_new_row(make_folder: Any) -> None:
    folder = make_folder(orphan_after_s=0.0)
    folder.half("request", {"instances": [[1]]}, request_id="r", minutes=1)
    folder.work()
    folder.now_ns += 10**18
    folder.work()
    assert folder.counter("orphans_total", kind="request") == 1
    folder.half("response", {"predictions": [1]}, request_id="r", minutes=2)
    folder.work()

    assert _entry(folder)["rows_seen"] == 1
    assert folder.counter("orphans_completed_total") == 1


def test_nothing_synthetic_is_noted(folder: Any) -> None:
    folder.ask([[1, "f"]], request_id="explain-1-0", minutes=900, version="v9")
    folder.work()
    assert _entry(folder) is None
    folder.ask([[1, "f"]], request_id="explain-1-1", minutes=901, version="v9")
    folder.ask([[1, "f"]], minutes=1)
    folder.work()

    entry = _entry(folder)

    assert (entry["rows_seen"], entry["versions"]) == (1, [])
    assert entry["last_seen"] == "2013-01-01T00:01:00.000000Z"


@pytest.mark.parametrize("restarts", [False, True])
def test_deployment_that_was_deleted_meanwhile_begins_anew(folder: Any, restarts: bool) -> None:  # noqa: FBT001
    folder.ask([[1, "f"]], version="v1")
    folder.work()
    deleted = folder.documents.get("deployments", "prod/flights")
    assert deleted["rows_seen"] == 1
    from_api = type(folder.documents)(folder.data)
    from sidelight.service._deployments import put_settings  # noqa: PLC0415

    put_settings(from_api, None, name="prod/flights")
    from_api.close()
    if restarts:
        folder.begin()
    folder.ask([[1, "f"]], version="v2")
    folder.work()

    assert (_entry(folder)["rows_seen"], _entry(folder)["versions"]) == (1, ["v2"])


def test_layouts_of_one_step_are_noted_together(folder: Any) -> None:
    folder.ask([[1]], names=("age",), version="v1")
    folder.ask([[1, "f"], [2, "m"]], version="v2")
    folder.ask([[1, "f", 3]], names=("age", "sex", "height"), version="v1")
    folder.work()

    entry = _entry(folder)

    assert entry["rows_seen"] == 4
    assert entry["versions"] == ["v1", "v2"]
    columns = [column["name"] for column in entry["schema"]["columns"]]
    assert {"age", "sex", "height", "late"} <= set(columns)
