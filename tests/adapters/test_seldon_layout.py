"""Documents as Seldon's request logger writes them: its samples, from what we know of the rows."""

import base64
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from sidelight.adapters import ImportFileError, Joined, SeldonOptions, seldon_log
from sidelight.adapters._elastic_bulk import Operation
from sidelight.adapters._seldon_layout import (
    ID_FIELD,
    REPLY_FIELD,
    clean_header,
    index_name,
    inference_documents,
    reply_documents,
)
from sidelight.payloads import Batch

_WIRE = Path(__file__).parents[1] / "wire"
# Known to the logger and not to us, or repeated by it in every row: see the module.
_LEFT_OUT = {"payload", "meta", "ce-source"}


def _sample(name: str) -> dict[str, Any]:
    sample: dict[str, Any] = json.loads((_WIRE / f"{name}.json").read_text())
    return sample


def _written(operation: Operation) -> tuple[str, str, dict[str, Any]]:
    body = orjson.loads(operation.body)
    assert operation.action == "update"
    assert body["doc_as_upsert"] is True
    assert operation.head["retry_on_conflict"] == 3
    # A field of ours, for erasures.
    assert body["doc"].pop(ID_FIELD, "i") == "i"
    assert len(body["doc"].pop(REPLY_FIELD, 32 * "x")) == 32
    return operation.head["_index"], operation.head["_id"], body["doc"]


def _expected(sample: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    stored = sample["elasticsearch"]
    document = json.loads(json.dumps(stored["doc"]).replace("00.171644169Z", "00.171644Z"))
    for part in ("request", "response"):
        if part in document:
            document[part] = {
                name: value for name, value in document[part].items() if name not in _LEFT_OUT
            }
    return stored["index"], stored["id"], document


def _batch(samples: Any, rows: list[dict[str, Any]], layout: dict[str, Any]) -> Batch:
    found: Batch = samples.batch(rows, deployment="seldon/income", layout=layout)
    return found


def _layout(*, names: tuple[list[str] | None, list[str]]) -> dict[str, Any]:
    sides = zip(("request", "response"), names, strict=True)
    return {
        side: {
            "form": "ndarray",
            "tensors": [{"name": name, "datatype": "NUMBER", "shape": []} for name in known]
            if known
            else [{"name": None, "datatype": "NUMBER", "shape": [3]}],
        }
        for side, known in sides
    }


_PUID = "33fb419e-8d6b-44e0-a084-8bd4bd4dbf7b"
_FACTS: dict[str, Any] = {
    "request_id": _PUID,
    "component": "classifier",
    "endpoint": "default",
    "protocol": "seldon",
}


def _row(samples: Any, time: str, number: int, values: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = samples.row("i", row=number, **_FACTS, **values)
    return {**row, "time": datetime.fromisoformat(time)}


def test_a_row_of_a_request_is_the_document_of_the_logger(samples: Any) -> None:
    names = ["Age", "Workclass", "Hours per week"], ["t:0", "t:1"]
    rows = [
        {
            **dict(zip([f"features.{name}" for name in names[0]], values, strict=True)),
            **dict(zip([f"outputs.{name}" for name in names[1]], answers, strict=True)),
        }
        for values, answers in (((53, 4, 60), (0.85, 0.15)), ((28, 1, 40), (0.2, 0.8)))
    ]
    time = "2026-05-01T11:00:00.171644+00:00"
    batch = _batch(
        samples,
        [_row(samples, time, number, values) for number, values in enumerate(rows)],
        _layout(names=names),
    )
    joined = Joined(labels={}, scores={("i", 1, 0): (None, None, True)})

    first, second = map(_written, inference_documents(batch, joined, SeldonOptions()))

    index, name, document = _expected(_sample("es01_request_logger_doc"))
    # Our detectors say how strange a row is, too.
    document["outlier"]["data"]["instance_score"] = None
    assert second == (index, name, document)
    assert first[1] == f"{_PUID}-item-0"
    assert "outlier" not in first[2]


def test_what_a_schema_says_of_columns_replaces_what_the_payload_says(samples: Any) -> None:
    sample = _sample("es03_metadata_enriched")
    values = {"features.f0": 53, "features.f1": 4, "features.f2": 60}
    answers = {"outputs.t:0": 0.14, "outputs.t:1": 0.86}
    row = _row(samples, "2026-05-01T11:02:00+00:00", 0, {**values, **answers})
    batch = _batch(samples, [row], _layout(names=(None, ["t:0", "t:1"])))
    options = SeldonOptions(schemas={"seldon/income": sample["prediction_schema"]})

    (written,) = map(_written, inference_documents(batch, Joined(labels={}, scores={}), options))

    index, name, document = _expected(sample)
    document["@timestamp"] = document["request"]["ce-time"] = "2026-05-01T11:02:00.000000Z"
    assert written == (index, name, document)


def test_the_answer_of_a_drift_detector_is_a_document_of_its_own() -> None:
    sample = _sample("es02_drift_doc")
    document = sample["elasticsearch"]["doc"]
    data = document["drift"]["data"]
    reply = {
        "kind": "drift",
        "deployment": "seldon/income",
        "component": "classifier",
        "endpoint": "default",
        "request_id": _PUID,
        "time": document["@timestamp"],
        "source": "io.seldon.serving.income-drift",
        "data": {
            "is_drift": 1,
            "distance": list(data["feature_distance"].values()),
            "p_val": list(data["feature_p_val"].values()),
            "threshold": data["threshold"],
        },
        "meta": document["drift"]["meta"],
    }
    columns = [{"name": name} for name in data["feature_distance"]]
    named = SeldonOptions(schemas={"seldon/income": {"requests": columns}})

    (with_names,) = map(_written, reply_documents(reply, named))
    (without,) = map(_written, reply_documents(reply, SeldonOptions()))

    assert with_names == _expected(sample)
    # As the logger does: no names, no values.
    assert without[2]["drift"]["data"]["feature_distance"] is None


def test_the_answer_of_an_outlier_detector_joins_the_rows_of_its_request() -> None:
    reply = {
        "kind": "outlier",
        "deployment": "seldon/income",
        "component": "classifier",
        "endpoint": "default",
        "request_id": _PUID,
        "time": None,
        "source": "io.seldon.serving.cifar10od",
        "data": {"is_outlier": [0, 1], "instance_score": [0.1, 9.7]},
        "meta": {"name": "OutlierVAE"},
    }

    written = [_written(item) for item in reply_documents(reply, SeldonOptions())]

    assert [name for _, name, _ in written] == [f"{_PUID}-item-0", f"{_PUID}-item-1"]
    assert written[1][2]["outlier"]["data"] == {"is_outlier": 1, "instance_score": 9.7}
    assert {index for index, _, _ in written} == {"inference-log-seldon-seldon-income-default"}
    assert list(reply_documents({**reply, "data": None}, SeldonOptions())) == []


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("inference-log", "seldon", "ns", "d", "e"), "inference-log-seldon-ns-d-e"),
        (("inference-log", "seldon", "NS", "a b", "e"), "inference-log-seldon-ns-a_b-e"),
    ],
)
def test_an_index_is_named_by_its_parts(parts: tuple[str, ...], expected: str) -> None:
    assert index_name(*parts) == expected
    assert index_name(*parts, environment="gitops").startswith("inference-log-gitops-seldon")


def test_headers_lose_what_the_logger_takes_out() -> None:
    assert clean_header('a!@#$"<>/?b') == "ab"


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"_source": {}}', b'{"_id": "x"}'])
def test_lines_that_are_no_documents_are_refused_by_their_number(line: bytes) -> None:
    with pytest.raises(ImportFileError, match="line 2"):
        seldon_log(b"\n" + line)


def test_rows_of_one_request_are_one_event_for_each_half() -> None:
    hits = [
        {
            "_id": f"r-item-{number}",
            "_source": {
                "RequestId": "r",
                "ServingEngine": "inferenceservice",
                "Ce-Namespace": "ns",
                "Ce-Inferenceservicename": "d",
                "request": {"instance": [number, 0]},
            },
        }
        for number in (10, 2, 0)
    ]

    (event,) = seldon_log(b"\n".join(map(orjson.dumps, hits)))

    member = json.loads(event.member())
    assert member["type"] == "org.kubeflow.serving.inference.request"
    assert json.loads(base64.b64decode(member["data_base64"])) == {
        "instances": [[0, 0], [2, 0], [10, 0]]
    }
