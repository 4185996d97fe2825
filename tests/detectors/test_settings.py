"""Parameters of detection, and the form of stored state."""

from typing import Any

import numpy as np
import pytest

from sidelight.detectors import DetectionSettings, ParameterError, SnapshotError
from sidelight.detectors._archive import pack, unpack


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        pytest.param({"false_alarm_probability": 0.0}, "false_alarm_probability", id="no-alarm"),
        pytest.param({"false_alarm_probability": 0.6}, "false_alarm_probability", id="coin"),
        pytest.param({"false_alarm_probability": "1"}, "false_alarm_probability", id="text"),
        pytest.param({"reference_rows": 49}, "reference_rows", id="small-reference"),
        pytest.param({"reference_rows": True}, "reference_rows", id="boolean"),
        pytest.param({"look_rows": 5}, "look_rows", id="few-rows"),
        pytest.param({"window_rows": 900}, "window_rows", id="no-multiple"),
        pytest.param({"window_rows": 0}, "window_rows", id="no-window"),
        pytest.param({"drift_threshold": float("nan")}, "drift_threshold", id="nan"),
        pytest.param({"end_fraction": 1.1}, "end_fraction", id="above-one"),
        pytest.param({"n_bins": 1}, "n_bins", id="one-bin"),
        pytest.param({"n_bins": 101}, "n_bins", id="many-bins"),
        pytest.param({"n_categories": 1001}, "n_categories", id="many-categories"),
        pytest.param({"max_features": 0}, "max_features", id="no-feature"),
    ],
)
def test_impossible_parameter_is_named(parameters: dict[str, Any], name: str) -> None:
    with pytest.raises(ParameterError) as caught:
        DetectionSettings(**parameters)

    assert caught.value.name == name


def test_parameters_are_read_by_name_and_an_unknown_name_is_refused() -> None:
    settings = DetectionSettings(look_rows=100, window_rows=300)

    assert DetectionSettings.from_json(settings.to_json()) == settings
    with pytest.raises(ParameterError) as caught:
        DetectionSettings.from_json({"windowrows": 3})
    assert caught.value.name == "windowrows"


def test_archive_gives_back_what_was_put_in() -> None:
    arrays = {"b": np.arange(6).reshape(2, 3), "a": np.array([0.1, np.nan]), "c": np.array([True])}

    head, found = unpack(pack({"x": [1, None, "\ud800"]}, arrays), "test")

    assert head == {"x": [1, None, "\ud800"]}
    for name, array in arrays.items():
        assert np.array_equal(found[name], array, equal_nan=name == "a")
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize("cut", [0, 5, 12, 40, -1])
def test_damaged_archive_is_refused(cut: int) -> None:
    data = pack({"x": 1}, {"a": np.arange(10)})

    with pytest.raises(SnapshotError) as caught:
        unpack(data[:cut], "test")

    assert caught.value.what == "test"


@pytest.mark.parametrize("tail", [b"x", b"\0" * 8])
def test_archive_with_more_bytes_is_refused(tail: bytes) -> None:
    with pytest.raises(SnapshotError):
        unpack(pack({}, {}) + tail, "test")


def test_archive_never_holds_objects() -> None:
    data = pack({}, {"a": np.arange(2)}).replace(b'"<i8"', b'"|O8"')

    with pytest.raises(SnapshotError):
        unpack(data, "test")
