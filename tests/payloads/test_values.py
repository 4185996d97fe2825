"""The values' JSON forms are those of the API."""

import pytest

from sidelight.payloads import (
    Alarm,
    Attribution,
    ExplainedRow,
    Explanation,
    FeatureShare,
    Inference,
    InferenceRow,
    RawRef,
    Verdict,
)


def test_inference_has_the_fields_of_the_api() -> None:
    inference = Inference(
        id="i",
        deployment="prod/income",
        version="3",
        component="predictor",
        request_id="r",
        time="2026-05-01T10:00:00.000000Z",
        latency_ms=1.5,
        status=200,
        protocol="v2-json",
        rows=(InferenceRow(features={"age": 39}, outputs={"y": 1}),),
        request_ref="0-1-0",
    )

    value = inference.to_json()

    assert set(value) == {
        *("id", "deployment", "version", "component", "request_id", "time", "latency_ms"),
        *("status", "protocol", "rows", "orphan", "synthetic", "tags", "raw"),
    }
    assert value["rows"] == [
        {"features": {"age": 39}, "outputs": {"y": 1}, "labels": {}, "outlier_score": None}
    ]
    assert value["raw"] == {"request_ref": "0-1-0", "response_ref": None}


def test_verdict_has_the_fields_of_the_api() -> None:
    verdict = Verdict(
        deployment="prod/income",
        version=None,
        detector="kolmogorov_smirnov",
        feature="age",
        time="2026-05-01T10:00:00Z",
        rows=1000,
        state="ok",
        distance=0.02,
        p_value=0.4,
        log10_evidence=None,
        threshold=0.1,
    )

    assert set(verdict.to_json()) == {
        *("deployment", "version", "detector", "feature", "time", "rows", "state", "distance"),
        *("p_value", "log10_evidence", "threshold", "reason"),
    }


def test_alarm_has_the_fields_of_the_api() -> None:
    alarm = Alarm(
        id="a",
        deployment="prod/income",
        version=None,
        kind="drift",
        detector="average_evidence",
        state="open",
        since="2026-05-01T10:00:00Z",
        raised_at="2026-05-01T11:00:00Z",
        raised_at_row=2000,
        ended_at=None,
        features=(FeatureShare(name="age", distance=0.3, share=0.9),),
        log10_evidence=2.5,
    )

    value = alarm.to_json()

    assert set(value) == {
        *("id", "deployment", "version", "kind", "detector", "state", "since", "raised_at"),
        *("raised_at_row", "ended_at", "features", "log10_evidence"),
    }
    assert value["features"] == [{"name": "age", "distance": 0.3, "share": 0.9}]


def test_explanation_has_the_fields_of_the_api() -> None:
    row = ExplainedRow(prediction=0.7, base=0.5, attributions={"age": Attribution(value=0.2)})
    explanation = Explanation(
        id="e",
        state="done",
        deployment="prod/income",
        version="3",
        inference_id="i",
        method="shapley",
        rows=(row,),
    )

    value = explanation.to_json()

    assert value["rows"][0]["attributions"] == {"age": {"value": 0.2, "standard_error": 0.0}}
    assert set(value["cost"]) == {
        *("model_calls", "model_rows", "unique_rows", "cache_hits", "seconds"),
    }
    assert set(value["quality"]) == {"converged", "local_error", "fidelity", "off_manifold"}


@pytest.mark.parametrize("text", ["", "1-2", "a-b-c", "1-2-3-4"])
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the class is all that is promised
        RawRef.parse(text)
