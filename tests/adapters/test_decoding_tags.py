"""Tags: attributes of our proxy and of brokers, and what bodies say beside their values."""

import json
from typing import Any

import pytest

from sidelight.adapters import Decoder, Decoding
from sidelight.logger import Pair, identity, inference_id
from sidelight.payloads import Event

ASKED = b'{"instances": [[1, 2]]}'
ANSWERED = b'{"predictions": [1]}'


def half(kind: str, data: bytes, **extensions: str) -> Event:
    names = {"namespace": "prod", "inferenceservicename": "m"}
    kinds = "org.kubeflow.serving.inference."
    return Event(
        id="r1",
        source="/s",
        type=extensions.pop("type", kinds + kind),
        datacontenttype=extensions.pop("content", None),
        extensions={**names, **extensions},
        data=data,
    )


def decode(request: Event | None, response: Event | None = None) -> Decoding:
    first = request or response
    assert first
    key = identity(first)
    return Decoder().decode([Pair(key, inference_id(key), request, response)])


def tags(request: Event | None, response: Event | None = None) -> dict[str, Any]:
    batch = decode(request, response).batches[0]
    return dict(json.loads(batch.records.column("tags")[0].as_py() or "{}"))


def test_what_our_proxy_says_is_kept() -> None:
    said = {
        "samplingrate": "0.25",
        "datalength": "70000",
        "datadigest": "sha-256=:abc:",
        "redacted": "2",
        "requestmethod": "POST",
        "requestpath": "/v2/models/m/infer",
        "headerxtenant": "t1",
        "headeruseragent": "curl",
        "responseheaderserver": "s",
        "statuscode": "200",
        "latencyms": "1.5",
    }

    assert tags(half("request", ASKED, **said)) == {
        "data_digest": "sha-256=:abc:",
        "data_length": "70000",
        "headers": {"useragent": "curl", "xtenant": "t1"},
        "method": "POST",
        "path": "/v2/models/m/infer",
        "redacted": "2",
        "response_headers": {"server": "s"},
        "sampling_rate": "0.25",
    }


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"truncated": "true"}, "truncated"),
        ({"redacted": "withheld"}, "withheld"),
        ({"abortedby": "client"}, "aborted"),
        ({"abortedby": "upstream"}, "aborted"),
    ],
)
def test_a_beginning_is_no_answer(said: dict[str, str], reason: str) -> None:
    decoded = decode(half("request", ASKED), half("response", ANSWERED, **said))

    assert decoded.undecoded == {("prod/m", reason): 1}
    assert decoded.batches[0].output("y").to_pylist() == [ANSWERED.decode()]
    assert decoded.batches[0].layout["response"]["protocol"] == "opaque"


def test_who_hung_up_later_asked_all_the_same() -> None:
    decoded = decode(half("request", ASKED, abortedby="client"))

    assert decoded.undecoded == {}
    assert tags(half("request", ASKED, abortedby="client")) == {"aborted_by": "client"}


def test_a_body_that_was_not_cut_is_read() -> None:
    assert decode(half("request", ASKED, truncated="false")).undecoded == {}


def test_an_error_is_told_and_gives_no_output() -> None:
    decoded = decode(half("request", ASKED), half("response", b'{"error": "no model"}'))

    batch = decoded.batches[0]
    assert (batch.output_names, len(batch), decoded.undecoded) == ([], 1, {})
    assert json.loads(batch.records.column("tags")[0].as_py()) == {"error": "no model"}


def test_an_error_for_many_rows_is_no_mismatch() -> None:
    request = half("request", b'{"instances": [[1], [2], [3]]}')

    batch = decode(request, half("response", b'{"error": "x"}')).batches[0]

    assert len(batch) == 3
    assert "rows_mismatch" not in batch.records.column("tags")[0].as_py()


@pytest.mark.parametrize(
    ("data", "status", "error"),
    [
        (b"<html>bad gateway</html>", "502", "<html>bad gateway</html>"),
        (b'{"message": "no"}', "400", '{"message": "no"}'),
        (b"", "503", "status 503"),
    ],
)
def test_the_page_of_a_gateway_is_no_prediction(data: bytes, status: str, error: str) -> None:
    decoded = decode(half("request", ASKED), half("response", data, statuscode=status))

    batch = decoded.batches[0]
    assert (batch.output_names, decoded.undecoded) == ([], {})
    assert json.loads(batch.records.column("tags")[0].as_py()) == {"error": error}


@pytest.mark.parametrize("status", ["200", "399", "x", "", "²"])
def test_what_is_no_error_stays_an_opaque_answer(status: str) -> None:
    batch = decode(half("request", ASKED), half("response", b"text", statuscode=status)).batches[0]

    assert batch.output("y").to_pylist() == ["text"]


def test_an_answer_that_can_be_read_is_one_whatever_its_status() -> None:
    response = half("response", ANSWERED, statuscode="500")

    assert decode(half("request", ASKED), response).batches[0].output("y").to_pylist() == [1]


def test_an_error_of_a_pipeline_is_its_text() -> None:
    response = half("response", b"rpc error", type="io.sidelight.seldoncore2.error")

    batch = decode(None, response).batches[0]

    assert batch.records.column("protocol").to_pylist() == ["error"]
    assert tags(None, response) == {"error": "rpc error"}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            {
                "knativeerrordest": "http://d/",
                "knativeerrorcode": "500",
                "knativeerrordata": "Ym9vbQ==",
            },
            {"dest": "http://d/", "code": 500, "data": "boom"},
        ),
        ({"knativeerrorcode": "x", "knativeerrordata": "Ym9v*"}, {"code": "x", "data": "boo"}),
        ({"knativeerrordata": "Ym9vY"}, {"data": "boo"}),
    ],
)
def test_dead_letters_say_what_went_wrong(said: dict[str, str], expected: dict[str, Any]) -> None:
    assert tags(half("request", ASKED, **said))["dead_letter"] == expected


def test_what_bodies_say_is_kept_and_does_not_replace_ours() -> None:
    request = b'{"dataframe_records": [{"a": 1}], "params": {"k": [1]}}'
    response = b"""{"strData": "x", "meta": {"puid": "p", "tags": {"tenant": "t1", "path": "other"},
                    "routing": {"ab": 1}, "metrics": [{"key": "k", "value": 1}]}}"""

    assert tags(half("request", request, requestpath="/p"), half("response", response)) == {
        "metrics": [{"key": "k", "value": 1}],
        "params": {"k": [1]},
        "path": "/p",
        "payload_id": "p",
        "routing": {"ab": 1},
        "tenant": "t1",
    }


@pytest.mark.parametrize(
    "params",
    ['{"a": 123456789012345678901234567890}', '{"a": "\\ud800"}', '{"a": NaN}', '{"a": 1e999}'],
)
def test_tags_are_json_for_every_parser(params: str) -> None:
    body = f'{{"dataframe_records": [{{"a": NaN}}], "params": {params}}}'

    assert "params" in tags(half("request", body.encode()))


def test_an_id_that_is_half_of_a_pair_loses_nothing() -> None:
    body = b"""{"id": "\\ud800", "inputs":
                [{"name": "\\ud800", "shape": [1], "datatype": "BYTES", "data": ["\\ud800"]}]}"""

    decoded = decode(half("request", body))

    assert len(decoded.batches[0]) == 1
