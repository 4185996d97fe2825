"""Replies of other detectors, shown as verdicts beside our own."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.service._reply_verdicts import reply_verdicts

_FIELDS = {
    "deployment",
    "version",
    "detector",
    "feature",
    "time",
    "rows",
    "state",
    "distance",
    "p_value",
    "log10_evidence",
    "threshold",
    "reason",
}
_OWN = {"kind", "source", "request_id"}


def _reply(data: object, *, kind: str = "drift", meta: object = None) -> dict[str, Any]:
    return {
        "kind": kind,
        "deployment": "prod/flights",
        "component": "c",
        "endpoint": "default",
        "request_id": "r1",
        "time": "2013-01-01T00:00:00Z",
        "source": "io.seldon.serving.od",
        "rows": 2 if kind == "outlier" else None,
        "data": data,
        "meta": {"name": "KSDrift"} if meta is None else meta,
    }


def test_drift_of_all_together_is_one_verdict_with_the_numbers_of_the_sender() -> None:
    data = {"is_drift": 1, "distance": 0.4, "p_val": 0.001, "threshold": 0.05}

    (verdict,) = reply_verdicts(_reply(data))

    assert verdict.keys() == _FIELDS | _OWN
    assert (verdict["detector"], verdict["feature"], verdict["state"]) == ("KSDrift", None, "drift")
    assert (verdict["distance"], verdict["p_value"], verdict["threshold"]) == (0.4, 0.001, 0.05)
    assert (verdict["deployment"], verdict["time"]) == ("prod/flights", "2013-01-01T00:00:00Z")
    assert (verdict["version"], verdict["log10_evidence"]) == (None, None)
    assert (verdict["kind"], verdict["source"]) == ("drift", "io.seldon.serving.od")
    assert verdict["request_id"] == "r1"


def test_drift_by_feature_is_one_verdict_more_for_each() -> None:
    data = {"is_drift": 1, "distance": [0.4, 0.1], "p_val": [0.001, 0.3], "threshold": 0.025}

    whole, *features = reply_verdicts(_reply(data), ["age", "sex"])

    assert (whole["feature"], whole["state"], whole["distance"]) == (None, "drift", 0.4)
    assert whole["p_value"] == 0.001
    assert [(one["feature"], one["state"]) for one in features] == [("age", "drift"), ("sex", "ok")]
    assert [one["distance"] for one in features] == [0.4, 0.1]
    assert [one["threshold"] for one in features] == [0.025, 0.025]


def test_what_the_sender_decided_by_feature_is_not_decided_again() -> None:
    data = {"is_drift": [0, 1], "distance": [0.4, 0.1], "p_val": [0.001, 0.3], "threshold": 0.05}

    _, *features = reply_verdicts(_reply(data), ["only", "three", "names"])

    assert [(one["feature"], one["state"]) for one in features] == [("f0", "ok"), ("f1", "drift")]


def test_a_feature_that_nobody_decided_is_no_drift_and_not_well_either() -> None:
    _, *features = reply_verdicts(_reply({"is_drift": 1, "distance": [0.4, 0.1]}))

    assert {one["state"] for one in features} == {"insufficient"}
    assert all(one["reason"] for one in features)


@pytest.mark.parametrize(("flags", "state"), [([0, 1], "drift"), ([0, 0], "ok")])
def test_outliers_are_one_verdict_of_their_rows(flags: list[int], state: str) -> None:
    data = {"is_outlier": flags, "instance_score": [0.1, 0.7], "feature_score": None}

    (verdict,) = reply_verdicts(_reply(data, kind="outlier", meta={"name": "OutlierVAE"}))

    assert verdict.keys() == _FIELDS | _OWN
    assert (verdict["detector"], verdict["state"], verdict["rows"]) == ("OutlierVAE", state, 2)
    assert verdict["distance"] == 0.7
    assert verdict["reason"] == f"{sum(flags)} of 2 rows are outliers"


@pytest.mark.parametrize("meta", [[], {}, {"name": ""}, {"name": 5}])
def test_a_detector_without_a_name_goes_by_who_sent_it(meta: object) -> None:
    (verdict,) = reply_verdicts(_reply({"is_drift": 0}, meta=meta))

    assert verdict["detector"] == "io.seldon.serving.od"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(("is_drift", "is_outlier", "distance", "p_val", "threshold"), _json),
    )
    | _json,
    st.sampled_from(["drift", "outlier"]),
    st.lists(st.text(max_size=3), max_size=3),
)
def test_whatever_is_replied_becomes_verdicts_that_json_can_hold(
    data: object, kind: str, names: list[str]
) -> None:
    verdicts = reply_verdicts(_reply(data, kind=kind), names)

    assert verdicts
    json.dumps(verdicts, allow_nan=False)
    for verdict in verdicts:
        assert verdict.keys() == _FIELDS | _OWN
        assert verdict["state"] in {"ok", "drift", "insufficient"}


def _send(folder: Any, number: int, kind: str, body: object, minutes: int) -> None:
    headers = {
        "ce-specversion": "1.0",
        "ce-source": "io.seldon.serving.od",
        "ce-type": f"io.seldon.serving.inference.{kind}",
        "ce-id": f"e{number}",
        "ce-time": f"2013-01-01T{minutes // 60:02d}:{minutes % 60:02d}:00Z",
        "ce-namespace": "prod",
        "ce-inferenceservicename": "flights",
        "ce-requestid": f"q{number}",
    }
    folder.put(headers, json.dumps(body).encode())


def test_replies_stand_among_our_verdicts_in_the_order_of_time(folder: Any, api: Any) -> None:
    for number in range(160):
        row = [float(number % 7), "f"]
        folder.ask([row] * 10, minutes=number)
    drift = {"is_drift": 1, "distance": [0.4, 0.1], "p_val": [0.01, 0.5], "threshold": 0.025}
    _send(folder, 1, "drift", {"data": drift, "meta": {"name": "KSDrift"}}, minutes=1)
    _send(folder, 2, "outlier", {"data": {"is_outlier": [1]}, "meta": {"name": "od"}}, minutes=900)
    folder.work()

    for order in ("time", "-time"):
        whole = api.items("/v1/verdicts", limit=1000, order=order)
        paged = api.pages("/v1/verdicts", limit=7, order=order)
        times = [item["time"] for item in whole]
        assert paged == whole
        assert times == sorted(times, reverse=order == "-time")
    assert {item["detector"] for item in whole} > {"KSDrift", "od", "simple_jumper"}
    assert [item["feature"] for item in whole if item["detector"] == "KSDrift"] == [
        None,
        "age",
        "sex",
    ]
    assert not [item for item in whole if item["detector"] == "simple_jumper" and "source" in item]

    (found,) = api.items("/v1/verdicts", detector="od")
    assert (found["deployment"], found["request_id"], found["rows"]) == ("prod/flights", "q2", 1)
    assert len(api.items("/v1/verdicts", detector="KSDrift", state="drift")) == 2
    assert api.items("/v1/verdicts", deployment="prod/other") == []
