"""Attributes of events beside those of KServe: sizes, digests, headers, claims and aborts."""

import hashlib
import hmac
import json
from typing import Any

import pytest

from sidelight.logger import Capture, Exchange, Redaction, RedactionRule

KEY = b"0123456789abcdef"
LONG = b'{"instances": [1, 2, 3]}'


def exchange(*lines: bytes, answer: tuple[bytes, ...] = (), **changes: Any) -> Exchange:
    fields: dict[str, Any] = {
        "method": b"POST",
        "target": b"/v2/models/flights/infer",
        "request_head": b"\r\n".join((b"POST / HTTP/1.1", *lines, b"", b"")),
        "request_body": b"{}",
        "response_head": b"\r\n".join((b"HTTP/1.1 200 OK", *answer, b"", b"")),
        "response_body": b"[]",
        "status": 200,
        "started_ns": 1_700_000_000_000_000_000,
        "finished_ns": 1_700_000_001_000_000_000,
        "latency_ms": 1.0,
    }
    return Exchange(**(fields | changes))


def members(capture: Capture, captured: Exchange, rate: float = 1.0) -> list[dict[str, Any]]:
    return [json.loads(event.member()) for event in capture.events(captured, rate)]


def masking(**rule: Any) -> Redaction:
    return Redaction([RedactionRule(action="mask", **rule)], key=KEY)


def test_both_sizes_are_those_on_the_wire() -> None:
    found = members(Capture(), exchange(request_body=LONG, response_body=b"", response_cut=7))

    assert [event["datasize"] for event in found] == ["24", "7"]


def test_of_a_cut_body_length_and_digest_are_told() -> None:
    digest = hashlib.sha256(LONG).digest()
    request, response = members(
        Capture(), exchange(request_body=LONG[:9], request_cut=15, request_digest=digest)
    )

    assert (request["truncated"], request["datalength"]) == ("true", "24")
    assert request["datadigest"] == "sha-256=" + digest.hex()
    assert not {"truncated", "datadigest"} & response.keys()


def test_where_rules_apply_a_digest_is_keyed_and_a_cut_body_does_not_leave() -> None:
    digest = hashlib.sha256(LONG).digest()
    cut = exchange(request_body=LONG[:9], request_cut=15, request_digest=digest)
    keyed = hmac.new(KEY, digest, hashlib.sha256).hexdigest()

    request, _ = members(Capture(redaction=masking(column="a")), cut)
    whole, _ = members(Capture(redaction=masking(column="a")), exchange(request_body=b"?" + LONG))
    unkeyed, _ = members(
        Capture(redaction=Redaction([RedactionRule(action="drop", column="a")])), cut
    )

    assert request["datadigest"] == "hmac-sha-256=" + keyed
    assert (request["datasize"], request["datalength"]) == ("24", "24")
    assert (request["redacted"], request["redactionreason"]) == ("withheld", "cut")
    assert whole["datadigest"].startswith("hmac-sha-256=")
    broken_off = exchange(request_body=LONG[:9], request_cut=15)
    assert "datadigest" not in members(Capture(redaction=masking(column="a")), broken_off)[0]
    assert "truncated" not in whole
    assert "datadigest" not in unkeyed
    assert not {"data", "data_base64"} & (request.keys() | whole.keys() | unkeyed.keys())


def test_a_digest_of_what_was_withheld_is_the_one_of_the_same_body_that_was_cut() -> None:
    redaction = masking(column="a")

    assert redaction.digest(LONG) == redaction.digest_of(hashlib.sha256(LONG).digest())


def test_an_event_says_that_it_was_redacted() -> None:
    capture = Capture(redaction=masking(column="f0", on="request"))
    request, response = members(capture, exchange(request_body=LONG))

    assert (request["redacted"], request["data"]) == ("applied", {"instances": [None] * 3})
    assert request["datasize"] == "24"
    assert "redacted" not in response


def test_a_redacted_body_that_came_compressed_says_no_coding_any_more() -> None:
    import gzip  # noqa: PLC0415 - of one test

    lines = (b"Content-Encoding: gzip", b"Content-Type: application/json")
    body = gzip.compress(LONG)
    request, _ = members(
        Capture(redaction=masking(column="f0")), exchange(*lines, request_body=body)
    )
    plain, _ = members(Capture(), exchange(*lines, request_body=body))

    assert "contentencoding" not in request
    assert request["data"] == {"instances": [None] * 3}
    assert plain["contentencoding"] == "gzip"


def test_an_exchange_that_a_side_ended_says_which() -> None:
    found = members(Capture(), exchange(aborted_by="client", status=499))

    assert [event["abortedby"] for event in found] == ["client", "client"]


def test_the_length_of_json_before_tensors_travels() -> None:
    line = b"Inference-Header-Content-Length: 12"
    request, response = members(Capture(), exchange(line, answer=(line.replace(b"12", b"7"),)))

    assert request["inferenceheadercontentlength"] == "12"
    assert response["inferenceheadercontentlength"] == "7"
    odd, _ = members(Capture(), exchange(line.replace(b"12", b"1e2")))
    assert "inferenceheadercontentlength" not in odd


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model_name":"m","model_version":"7"}', "7"),
        (b'{"model_version" : "v 1"}', "v 1"),
        (b'{"model_version":"a\\u0041"}', None),
        (b'{"model_version":"\xff"}', None),
        (b'{"model_version":7}', None),
        (b'{"outputs":[%b],"model_version":"7"}' % (b"0," * 200), None),
    ],
)
def test_the_version_that_an_answer_names_first_is_told(body: bytes, expected: str | None) -> None:
    _, response = members(Capture(), exchange(response_body=body))

    assert response.get("modelversion") == expected


def test_the_version_in_the_path_wins_and_a_redacted_one_is_not_told() -> None:
    body = b'{"model_version":"7"}'
    versioned = exchange(target=b"/v2/models/m/versions/3/infer", response_body=body)

    assert [event["modelversion"] for event in members(Capture(), versioned)] == ["3", "3"]
    _, response = members(
        Capture(redaction=masking(path="$.model_version")), exchange(response_body=body)
    )
    assert "modelversion" not in response


def test_headers_travel_only_when_they_are_allowed() -> None:
    lines = (b"X-Tenant: red", b"x-team-1: a\xc3\xa9", b"X-Other: no", b"X-Request-Id: r-7")
    capture = Capture(
        headers=["x-tenant", "X-Team-1", "X-Missing", "X-Request-Id"], response_headers=["Server"]
    )

    for _ in range(2):
        request, response = members(capture, exchange(*lines, answer=(b"server: m",)))

        assert request["id"] == response["id"] == "r-7"
        assert (request["headerxtenant"], request["headerxteam1"]) == ("red", "aé")
        assert response["headerxtenant"] == "red"
        assert request["headerxrequestid"] == "r-7"
        assert response["responseheaderserver"] == "m"
        assert "responseheaderserver" not in request
        assert not any("other" in name or "missing" in name for name in request)


@pytest.mark.parametrize(
    "name", ["Authorization", "cookie", "Set-Cookie", "PROXY-AUTHORIZATION", "X-Api-Key"]
)
def test_a_header_that_holds_secrets_is_refused_unless_it_is_always_hashed(name: str) -> None:
    def build(**rule: Any) -> Capture:
        rules = [RedactionRule(header=name.title(), **rule)] if rule else []
        return Capture(headers=[name], redaction=Redaction(rules, key=KEY))

    for rule in ({}, {"action": "mask"}, {"action": "hmac", "deployment": "a/*"}):
        with pytest.raises(ValueError, match=r"^headers: expected none that holds secrets"):
            build(**rule)
    request, _ = members(build(action="hmac"), exchange(name.encode() + b": Bearer qwertyuiop"))
    assert "qwertyuiop" not in json.dumps(request)
    assert any(name.startswith("header") for name in request)


@pytest.mark.parametrize(
    "names", [["X-Tenant", "x_tenant"], ["X-A", "X-A"], ["--"], [""], ["X Tenant"]]
)
def test_headers_that_no_attribute_tells_apart_are_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^headers: expected"):
        Capture(headers=names)


def test_the_platforms_own_names_win_over_the_path() -> None:
    lines = (
        b"Ce-Inferenceservicename: risk",
        b"ce-namespace: prod",
        b"ce-component: transformer",
        b"ce-endpoint: canary",
    )
    capture = Capture()
    captured = exchange(*lines)
    for found in members(capture, captured):
        assert (found["namespace"], found["inferenceservicename"]) == ("prod", "risk")
        assert (found["component"], found["endpoint"]) == ("transformer", "canary")
        assert found["modelname"] == "flights"
    assert capture.deployment_of(captured) == "prod/risk"
    for event in capture.events(captured):
        names = [name for name, _ in event.headers()]
        assert names.count(b"ce-endpoint") == 1


def test_a_configured_deployment_is_not_the_callers_to_change() -> None:
    lines = (b"Ce-Inferenceservicename: risk", b"ce-namespace: prod", b"ce-endpoint: canary")
    capture = Capture(deployment="here/this")

    request, _ = members(capture, exchange(*lines))

    assert (request["namespace"], request["inferenceservicename"]) == ("here", "this")
    assert request["endpoint"] == "canary"
    assert capture.deployment_of(exchange(*lines)) == "here/this"


def test_a_namespace_alone_claims_nothing() -> None:
    request, _ = members(Capture(), exchange(b"ce-namespace: prod"))

    assert request["namespace"] == "default"


def test_no_caller_gets_out_of_a_rule_by_a_claim() -> None:
    capture = Capture(redaction=masking(column="f0", deployment="default/flights"))

    request, _ = members(capture, exchange(b"Ce-Inferenceservicename: x", request_body=LONG))

    assert request["data"] == {"instances": [None] * 3}


@pytest.mark.parametrize(
    "path",
    [b"/v1//models/flights:predict", b"/v1/./models/flights%3Apredict", b"/v1/models/flights;v=1"],
)
def test_no_caller_gets_out_of_a_rule_by_the_spelling_of_the_path(path: bytes) -> None:
    capture = Capture(redaction=masking(column="f0", deployment="default/flights"))

    request, _ = members(capture, exchange(target=path, request_body=LONG))

    assert request["data"] == {"instances": [None] * 3}


def test_a_message_that_names_no_model_is_any_models() -> None:
    capture = Capture(redaction=masking(column="f0", deployment="default/flights"))
    method = b"/inference.GRPCInferenceService/ModelInfer"

    unread, _ = members(capture, exchange(target=method, request_body=LONG))
    other, _ = members(capture, exchange(target=method + b"?model=other", request_body=LONG))

    assert unread["data"] == {"instances": [None] * 3}
    assert other["data"] == json.loads(LONG)


@pytest.mark.parametrize(("rate", "text"), [(1.0, "1"), (0.1, "0.1"), (1 / 3, "0.3333333333")])
def test_the_rate_travels(rate: float, text: str) -> None:
    found = members(Capture(), exchange(), rate)

    assert [event["samplingrate"] for event in found] == [text, text]
    assert float(text) == pytest.approx(rate)
