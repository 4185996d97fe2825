"""The archived bytes of an inference: as they came, to whom they belong, and what is gone."""

import base64
import gzip
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidelight.logger import Signer
from sidelight.logger._checkpoint import Checkpoint
from sidelight.logger._segments import SegmentWriter
from sidelight.logger._segments_reader import SegmentReader
from sidelight.service._settings import Settings
from sidelight.service._settings_access import AuthSettings
from sidelight.service._tokens import Tokens

_REQUEST = b'{"inputs": [{"name":"x","shape":[1],"datatype":"FP64","data":[ 1.50 ]}]}'
_RESPONSE = b'{"outputs": [{"name":"y","shape":[1],"datatype":"FP64","data":[2e0]}] }'


def head_of(folder: Any, position: int) -> bytes:
    reader = SegmentReader(folder.data)
    record = reader.record(position)
    reader.close()
    assert record is not None
    return bytes(record.head)


def test_both_halves_come_byte_for_byte(folder: Any, api: Any) -> None:
    position = folder.half("request", _REQUEST, request_id="r", minutes=1)
    folder.half("response", _RESPONSE, request_id="r", minutes=1)
    folder.work()
    (found,) = api.items("/v1/inferences")

    whole = api.get(f"/v1/inferences/{found['id']}", raw="true").json()
    plain = api.get(f"/v1/inferences/{found['id']}/raw/request")
    answered = api.get(f"/v1/inferences/{found['id']}/raw/response")

    raw = whole.pop("raw")
    assert whole == {name: value for name, value in found.items() if name != "raw"}
    assert {name: raw[name] for name in found["raw"]} == found["raw"]
    assert base64.b64decode(raw["request"]["head"]) == head_of(folder, position)
    assert base64.b64decode(raw["request"]["body"]) == _REQUEST
    assert base64.b64decode(raw["request"]["payload"]) == _REQUEST
    assert base64.b64decode(raw["response"]["body"]) == _RESPONSE
    assert (raw["request"]["member"], raw["missing"]) == (None, {})
    assert raw["request"]["content_type"] == "application/json"
    assert raw["request"]["received"].endswith("Z")
    assert (plain.content, answered.content) == (_REQUEST, _RESPONSE)
    assert plain.headers["content-type"] == "application/json"
    assert plain.headers["content-security-policy"].startswith("sandbox")


def event(side: str, name: str, request_id: str, **data: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "type": f"org.kubeflow.serving.inference.{side}",
        "source": "/x",
        "id": request_id,
        "namespace": name.partition("/")[0],
        "inferenceservicename": name.partition("/")[2],
        **data,
    }


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_of_a_batch_only_the_member_is_shown(folder: Any, make_api: Any, coding: str) -> None:
    payload = json.loads(_REQUEST)
    members = [
        json.dumps(event("request", "test/flights", "other", data={"inputs": [[7]]})),
        # Written unlike anybody else would: it must come back so.
        json.dumps(event("request", "prod/flights", "mine", data=payload), indent=3),
        json.dumps(
            event(
                "response",
                "prod/flights",
                "mine",
                datacontenttype="application/json",
                data_base64=base64.b64encode(_RESPONSE).decode(),
            )
        ),
        '{"no": "event"}',
    ]
    body = f"[ {' , '.join(members)}]".encode()
    headers = {"content-type": "application/cloudevents-batch+json; charset=utf-8"}
    if coding == "gzip":
        headers["content-encoding"] = "gzip"
        body = gzip.compress(body)
    position = folder.put(headers, body, path="/events")
    folder.work()
    api = make_api(Settings(data=folder.data, auth=AuthSettings(required=True)))
    _, text = Tokens(folder.data).create(roles=["read"], namespaces=["prod"])
    allowed = {"Authorization": f"Bearer {text}"}
    path = "/v1/inferences?deployment=prod/flights"
    (found,) = api.request("GET", path, headers=allowed).json()["items"]

    raw = api.request("GET", f"/v1/inferences/{found['id']}?raw=true", headers=allowed).json()[
        "raw"
    ]
    answered = api.request("GET", f"/v1/inferences/{found['id']}/raw/response", headers=allowed)

    assert base64.b64decode(raw["request"]["body"]).decode() == members[1]
    assert json.loads(base64.b64decode(raw["request"]["payload"])) == payload
    assert base64.b64decode(raw["request"]["head"]) == head_of(folder, position)
    assert (raw["request"]["member"], raw["response"]["member"]) == (1, 2)
    assert answered.content == _RESPONSE


def test_a_batch_by_its_content_type_alone_is_shown_whole(folder: Any, api: Any) -> None:
    # KServe's agent copies the content type of the caller, whatever it is.
    label = {"content-type": "application/cloudevents-batch+json"}
    for side, body in (("request", _REQUEST), ("response", _RESPONSE)):
        attributes = event(side, "prod/flights", "r")
        folder.put({**{f"ce-{name}": value for name, value in attributes.items()}, **label}, body)
    folder.work()
    (found,) = api.items("/v1/inferences")

    raw = api.get(f"/v1/inferences/{found['id']}", raw="true").json()["raw"]

    assert base64.b64decode(raw["request"]["body"]) == _REQUEST
    assert (raw["request"]["member"], raw["response"]["member"]) == (None, None)


def test_what_is_no_media_type_is_sent_as_bytes(folder: Any, api: Any) -> None:
    for number, stated in enumerate(['a/b"\x00\n', "text/html; charset=é", "nonsense", ""]):
        folder.put(
            {"content-type": "application/cloudevents+json"},
            json.dumps(
                event(
                    "request",
                    "prod/flights",
                    f"r{number}",
                    datacontenttype=stated,
                    time="2013-01-01T00:00:00Z",
                    data="<script>",
                )
            ).encode(),
        )
    folder.work()
    folder.now_ns += 10**18
    folder.work()

    found = api.items("/v1/inferences")

    assert len(found) == 4
    for item in found:
        answer = api.get(f"/v1/inferences/{item['id']}/raw/request")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_half_that_never_came_is_not_found(folder: Any, api: Any) -> None:
    folder.half("request", _REQUEST, request_id="r")
    folder.work()
    folder.now_ns += 10**18
    folder.work()
    (found,) = api.items("/v1/inferences")

    problem = api.problem("GET", f"/v1/inferences/{found['id']}/raw/response")
    raw = api.get(f"/v1/inferences/{found['id']}", raw="1").json()["raw"]

    assert (problem["status"], found["orphan"]) == (404, "request")
    assert "never came" in problem["detail"]
    assert base64.b64decode(raw["request"]["body"]) == _REQUEST
    assert raw["response"] is None
    assert "never came" in raw["missing"]["response"]


def test_what_was_retired_is_gone_and_says_when_and_why(folder: Any, api: Any) -> None:
    folder.half("request", _REQUEST, request_id="r", minutes=1)
    folder.half("response", _RESPONSE, request_id="r", minutes=1)
    folder.work()
    # A start seals what was there.
    folder.writer.close()
    folder.writer = SegmentWriter(folder.data, signer=Signer(Ed25519PrivateKey.generate()))
    (found,) = api.items("/v1/inferences")
    checkpoint = Checkpoint.load(folder.data)
    assert checkpoint is not None
    folder.writer.retire({checkpoint.segments[0].name: "older than 30d"})

    for path in ("", "/raw/request", "/raw/response"):
        problem = api.problem(
            "GET", f"/v1/inferences/{found['id']}{path}", params={} if path else {"raw": "true"}
        )
        assert problem["status"] == 410
        assert "older than 30d" in problem["detail"]
    assert api.get(f"/v1/inferences/{found['id']}").json() == found


def test_damage_is_said_and_not_shown(folder: Any, api: Any) -> None:
    folder.half("request", _REQUEST, request_id="r", minutes=1)
    folder.half("response", _RESPONSE, request_id="r", minutes=1)
    folder.work()
    (found,) = api.items("/v1/inferences")
    for path in (folder.data / "raw").glob("*.seg"):
        path.write_bytes(path.read_bytes()[:4096].ljust(4096, b"\x00"))
        with path.open("r+b") as file:
            file.seek(64)
            file.write(b"\xff" * 64)

    problem = api.problem("GET", f"/v1/inferences/{found['id']}/raw/request")

    assert problem["status"] == 500
    assert "verify" in problem["detail"]


def test_unknown_sides_and_foreign_inferences_are_refused(folder: Any, make_api: Any) -> None:
    folder.ask([[1.0, "f"]])
    folder.work()
    api = make_api(Settings(data=folder.data, auth=AuthSettings(required=True)))
    tokens = Tokens(folder.data)
    _, reader = tokens.create(roles=["read"], namespaces=None)
    _, limited = tokens.create(roles=["read"], namespaces=["test"])
    mine, others = ({"Authorization": f"Bearer {text}"} for text in (reader, limited))
    (found,) = api.request("GET", "/v1/inferences", headers=mine).json()["items"]
    path = f"/v1/inferences/{found['id']}"

    assert api.request("GET", f"{path}/raw/head", headers=mine).status_code == 400
    assert api.request("GET", f"{path}/raw/request", headers=mine).status_code == 200
    assert api.request("GET", f"{path}/raw/request", headers=others).status_code == 404
    assert api.request("GET", f"{path}?raw=true", headers=others).status_code == 404
    assert api.request("GET", f"{path}?raw=perhaps", headers=mine).status_code == 400
