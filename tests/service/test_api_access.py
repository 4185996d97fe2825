"""Who may ask for what: every route with every role, limited tokens, and what is written down."""

import asyncio
import base64
import json
from collections.abc import Iterator, MutableMapping
from datetime import timedelta
from typing import Any

import pytest

from sidelight.logger import Document
from sidelight.service._access import NEEDED
from sidelight.service._access_log import AccessLog
from sidelight.service._api import create_app
from sidelight.service._erasure_orders import (
    COLLECTION,
    ErasureAnswer,
    ErasureOrder,
    ErasureOrders,
)
from sidelight.service._settings import Settings
from sidelight.service._settings_access import AuthSettings
from sidelight.service._tokens import ROLES, Role, Tokens

_NAMESPACES = ("prod", "test")
_IMPLIED = {"ingest": ["ingest"], "read": ["read"], "explain": ["read", "explain"]}
# What a route answers to an empty question, once the caller may ask.
_ALLOWED = {200, 204, 400, 404, 409}
_PLACEHOLDERS = {
    "namespace": "prod",
    "name": "flights",
    "inference_id": "0" * 32,
    "side": "request",
    "alarm_id": "a",
    "explanation_id": "e",
    "erasure_id": "e",
}


class Guarded:
    """The API where tokens are required, over a folder with two namespaces."""

    def __init__(self, api: Any) -> None:
        self.api = api
        self.data = api.context.settings.data
        self.tokens = Tokens(self.data)

    def token(self, *roles: Role, namespaces: list[str] | None = None) -> dict[str, str]:
        _, text = self.tokens.create(roles=roles, namespaces=namespaces)
        return {"Authorization": f"Bearer {text}"}

    def status(self, method: str, path: str, headers: dict[str, str], **options: Any) -> int:
        answer = self.api.request(method, path, headers=headers, **options)
        return int(answer.status_code)

    def entries(self) -> list[dict[str, Any]]:
        return [
            json.loads(line)
            for path in sorted((self.data / "access").glob("log-*.jsonl"))
            for line in path.read_text().splitlines()
        ]


@pytest.fixture
def guarded(folder: Any, make_api: Any) -> Guarded:
    for name in ("prod/flights", "test/flights"):
        folder.ask([[1.0, "f"]], deployment=name, request_id=f"r-{name}")
    folder.work()
    return Guarded(make_api(Settings(data=folder.data, auth=AuthSettings(required=True))))


def _operations(guarded: Guarded) -> list[tuple[str, str]]:
    paths = create_app(guarded.api.context).openapi()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def test_every_route_refuses_who_has_no_token_and_every_role_that_may_not(guarded: Guarded) -> None:
    tokens = {role: guarded.token(role) for role in ROLES}
    operations = [*_operations(guarded), ("GET", "/"), ("GET", "/openapi.json")]
    assert len(operations) > 15
    for method, template in operations:
        path = template.format(**_PLACEHOLDERS)
        needed = NEEDED.get((method, template), "admin")
        if needed is None:
            assert guarded.status(method, path, {}) in {200, 503}
            continue
        for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic !"}):
            answer = guarded.api.request(method, path, headers=headers)
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"].startswith("Bearer")
        for role, token in tokens.items():
            may = role == "admin" or needed in _IMPLIED[role]
            status = guarded.status(method, path, token)
            assert status in _ALLOWED if may else status == 403, (method, path, role, status)


def test_every_route_but_those_of_the_kubelet_is_in_the_table_or_for_administrators(
    guarded: Guarded,
) -> None:
    operations = set(_operations(guarded))
    beside = {("GET", "/"), ("GET", "/openapi.json")}
    assert not set(NEEDED) - operations - beside, "the table names routes that are not there"
    assert {route for route, role in NEEDED.items() if role is None} == {
        ("GET", "/healthz"),
        ("GET", "/readyz"),
    }


def test_unknown_paths_and_encoded_slashes_do_not_lead_around_the_table(guarded: Guarded) -> None:
    reader = guarded.token("read")
    limited = guarded.token("admin", namespaces=["prod"])
    for path in ("/nothing", "/v1/deployments/prod/a/b", "/v1/inferences/", "//v1/inferences"):
        assert guarded.status("GET", path, reader) == 403
        assert guarded.status("PUT", path, reader, json={}) == 403
        assert guarded.status("GET", path, limited) == 403
    assert guarded.status("PUT", "/v1/deployments/prod/a%2Fb", reader, json={}) == 403
    assert guarded.status("PUT", "/v1/deployments/test/a%2Fb", limited, json={}) == 403
    assert guarded.status("PUT", "/v1/deployments/prod/a%2Fb", limited, json={}) == 200
    assert guarded.status("GET", "/nothing", guarded.token("admin")) == 404


def test_a_limited_token_sees_its_namespaces_and_nothing_of_others(guarded: Guarded) -> None:
    limited = guarded.token("admin", namespaces=["prod"])
    get = guarded.api.request

    def items(path: str) -> Any:
        return get("GET", path, headers=limited).json()["items"]

    ids = {
        item["deployment"]: item["id"]
        for item in guarded.api.request(
            "GET", "/v1/inferences", headers=guarded.token("read")
        ).json()["items"]
    }
    assert [item["name"] for item in items("/v1/deployments")] == ["prod/flights"]
    assert len(items("/v1/inferences?deployment=prod/flights")) == 1
    for path in ("/v1/inferences", "/v1/verdicts", "/v1/alarms", "/v1/inferences/export"):
        assert guarded.status("GET", path, limited) == 403
        assert guarded.status("GET", f"{path}?deployment=test/flights", limited) == 403
        assert guarded.status("GET", f"{path}?deployment=prod/flights", limited) == 200
        twice = f"{path}?deployment=prod/flights&deployment=test/flights"
        assert guarded.status("GET", twice, limited) == 403
    own, foreign = ids["prod/flights"], ids["test/flights"]
    assert guarded.status("GET", f"/v1/inferences/{own}", limited) == 200
    assert guarded.status("GET", f"/v1/inferences/{foreign}", limited) == 404
    for path in ("/v1/deployments/test/flights", "/metrics", "/"):
        assert guarded.status("GET", path, limited) == 403
    label = {"request_id": "r-1", "labels": {"late": 1}}
    for name, status in (("prod/flights", 200), ("test/flights", 404)):
        feedback = [{"deployment": name, **label}]
        assert guarded.status("POST", "/v1/feedback", limited, json=feedback) == status
    for question in ({"inference_id": foreign}, {"deployment": "test/flights", "instances": [[1]]}):
        assert guarded.status("POST", "/v1/explanations", limited, json=question) == 404


def _order(guarded: Guarded, deployment: str) -> ErasureOrder:
    order = ErasureOrder(deployment=deployment, by="me", reason="asked", where="x = 1")
    ErasureOrders(guarded.data).ask(order)
    return order


def _decided(order: ErasureOrder) -> Document:
    value = {
        "id": order.id,
        "deployment": order.deployment,
        "by": "me",
        "reason": "asked",
        "time": "2026-03-01T12:00:00.000Z",
        "state": "done",
        "inferences": 1,
        "rows": 1,
        "keys": 1,
        "unknown": 0,
        "plain": [],
    }
    return Document(collection=COLLECTION, key=order.id, deployment=order.deployment, value=value)


def test_a_limited_token_sees_erasures_of_its_namespaces_whatever_became_of_them(
    guarded: Guarded,
) -> None:
    limited, whole = guarded.token("admin", namespaces=["prod"]), guarded.token("admin")
    orders = ErasureOrders(guarded.data)
    own, foreign = ([_order(guarded, f"{name}/flights") for _ in range(3)] for name in _NAMESPACES)
    for order in (own[1], foreign[1]):
        orders.close(ErasureAnswer(id=order.id, state="found"))
    for order in (own[2], foreign[2]):
        guarded.api.context.documents.put([_decided(order)])
        orders.forget(order.id)
    nobodys = ErasureAnswer(id="erasure-0123456789ab", state="refused", detail="x = 1")
    orders.close(nobodys)

    def status(headers: dict[str, str], *asked: ErasureOrder | ErasureAnswer) -> list[int]:
        return [guarded.status("GET", f"/v1/erasures/{one.id}", headers) for one in asked]

    assert status(limited, *own) == [202, 200, 200]
    assert status(limited, *foreign, nobodys) == [404] * 4
    # Nothing was taken away by who may not see it.
    assert status(whole, *own, *foreign, nobodys) == [202, 200, 200, 202, 200, 200, 400]
    for headers, seen in ((limited, own), (whole, [*own, *foreign])):
        items = guarded.api.request("GET", "/v1/erasures", headers=headers).json()["items"]
        expected = {order.id for order in seen} - {own[1].id, foreign[1].id}
        assert {item["id"] for item in items} == expected


def test_an_erasure_of_another_namespace_is_answered_as_one_that_is_not_there(
    guarded: Guarded,
) -> None:
    limited = guarded.token("admin", namespaces=["prod"])
    waiting, decided = (_order(guarded, "test/flights") for _ in range(2))
    guarded.api.context.documents.put([_decided(decided)])

    def problem(erasure_id: str) -> str:
        answer = guarded.api.request("GET", f"/v1/erasures/{erasure_id}", headers=limited)
        return str(answer.text).replace(erasure_id, "ID")

    assert problem(waiting.id) == problem(decided.id) == problem("erasure-0123456789ab")


def test_an_erasure_that_is_decided_while_it_is_asked_for_is_there(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = _order(guarded, "prod/flights")
    orders, headers = ErasureOrders(guarded.data), guarded.token("admin")
    documents = guarded.api.context.documents
    get = type(documents).get

    def decides(self: Any, collection: str, key: str) -> Any:
        found = get(self, collection, key)
        if collection == COLLECTION:
            documents.put([_decided(order)])
            orders.forget(order.id)
        return found

    monkeypatch.setattr(type(documents), "get", decides)
    paths = [f"/v1/erasures/{order.id}"] * 2

    assert [guarded.status("GET", path, headers) for path in paths] == [202, 200]


def test_what_is_written_down_says_who_what_when_and_why(guarded: Guarded) -> None:
    headers = guarded.token("read")
    where = {"where": "features.age > 0", "deployment": "prod/flights"}
    reason = {**headers, "X-Sidelight-Reason": "ticket 17"}
    guarded.api.request("GET", "/v1/inferences", params=where, headers=reason)
    guarded.status("PUT", "/v1/deployments/prod/flights", headers, json={})
    guarded.status("GET", "/v1/inferences", {})
    guarded.status("GET", "/metrics", headers)
    question = {"deployment": "prod/flights", "instances": [[1.0, "f"]]}
    guarded.status("POST", "/v1/explanations", guarded.token("explain"), json=question)
    asked, refused, explained = guarded.entries()
    (token, *_) = guarded.tokens.list()
    assert asked["caller"] == token.id
    assert asked["route"] == "/v1/inferences"
    assert asked["parameters"] == where
    assert asked["reason"] == "ticket 17"
    assert asked["status"] == 200
    assert asked["time"].endswith("+00:00")
    assert (refused["status"], refused["method"]) == (403, "PUT")
    assert explained["parameters"]["deployment"] == "prod/flights"
    assert explained["status"] == 409


def test_what_nobody_foresaw_is_written_down_before_it_is_answered(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    headers = {**guarded.token("read"), "X-Sidelight-Reason": "ticket 17"}
    monkeypatch.setattr(type(guarded.api.context.inferences), "find", fails)
    assert guarded.status("GET", "/v1/inferences?limit=3", headers) == 500
    (entry,) = guarded.entries()

    assert entry["status"] == 500
    assert (entry["route"], entry["parameters"]) == ("/v1/inferences", {"limit": "3"})
    assert entry["reason"] == "ticket 17"


def test_what_nobody_foresaw_and_cannot_be_written_down_is_withheld_as_all_else(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    def full(_: AccessLog, __: Any) -> None:
        raise OSError(28, "No space left on device")

    headers = guarded.token("read")
    monkeypatch.setattr(type(guarded.api.context.inferences), "find", fails)
    monkeypatch.setattr(AccessLog, "append", full)

    assert guarded.status("GET", "/v1/inferences", headers) == 503


def test_an_export_that_breaks_off_is_written_down_once(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks_off(*_: object, **__: object) -> Iterator[bytes]:
        yield b"first"
        raise ZeroDivisionError

    monkeypatch.setattr(type(guarded.api.context.inferences), "export", breaks_off)
    guarded.status("GET", "/v1/inferences/export", guarded.token("read"))

    assert [entry["status"] for entry in guarded.entries()] == [200]


def test_head_is_answered_as_get_is_without_the_body(guarded: Guarded) -> None:
    inference_id = guarded.api.request(
        "GET", "/v1/inferences?limit=1", headers=guarded.token("read")
    ).json()["items"][0]["id"]
    filled = {**_PLACEHOLDERS, "inference_id": inference_id}
    tokens = [{}, guarded.token("ingest"), guarded.token("admin")]
    gets = [path for method, path in _operations(guarded) if method == "GET"]
    for template in (*gets, "/", "/openapi.json"):
        path = template.format(**filled)
        for headers in tokens:
            before = len(guarded.entries())
            got, head = (guarded.api.request(m, path, headers=headers) for m in ("GET", "HEAD"))
            assert head.status_code == got.status_code, path
            assert _steady(head) == _steady(got), path
            assert head.content == b"" or head.status_code in {401, 403}, path
            written = [
                {name: of for name, of in entry.items() if name not in {"time", "previous"}}
                for entry in guarded.entries()[before:]
            ]
            assert [entry["method"] for entry in written] == (["GET", "HEAD"] if written else [])
            assert all({**entry, "method": "HEAD"} == written[-1] for entry in written)
    assert guarded.status("HEAD", "/v1/inferences?wher=x", tokens[2]) == 400
    assert guarded.status("HEAD", "/nothing", tokens[2]) == 404


def _steady(answer: Any) -> dict[str, str]:
    """Return the headers; the length of what tells of a moment may be another each time."""
    return {
        name: value
        for name, value in answer.headers.items()
        if name != "content-length" or "text/plain" not in answer.headers["content-type"]
    }


def test_head_does_not_make_the_rest_of_an_export(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def endless(*_: object, **__: object) -> Iterator[bytes]:
        while True:
            made.append(b"x")
            yield b"x"

    monkeypatch.setattr(type(guarded.api.context.inferences), "export", endless)
    answer = guarded.api.request("HEAD", "/v1/inferences/export", headers=guarded.token("read"))

    assert answer.status_code == 200
    assert "attachment" in answer.headers["content-disposition"]
    assert len(made) < 3


@pytest.mark.parametrize("version", ["2.3", "2.4"])
def test_head_ends_an_export_whose_server_takes_all_that_is_sent(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    made, sent = [], []

    def many(*_: object, **__: object) -> Iterator[bytes]:
        for _part in range(1000):
            made.append(b"x")
            yield b"x"

    async def receive() -> dict[str, Any]:
        # The caller says no more and stays.
        await asyncio.Event().wait()
        return {}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    monkeypatch.setattr(type(guarded.api.context.inferences), "export", many)
    token = guarded.token("read")["Authorization"].encode()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": version},
        "http_version": "1.1",
        "method": "HEAD",
        "scheme": "http",
        "path": "/v1/inferences/export",
        "raw_path": b"/v1/inferences/export",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"x"), (b"authorization", token)],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    asyncio.run(create_app(guarded.api.context)(scope, receive, send))

    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert (sent[0]["status"], sent[1]["body"], sent[1]["more_body"]) == (200, b"", False)
    assert len(made) < 3


def test_a_wrong_method_is_told_the_right_ones(guarded: Guarded) -> None:
    headers = guarded.token("admin")
    for method, path, allowed in (
        ("DELETE", "/v1/alarms", "GET, HEAD"),
        ("PATCH", "/v1/deployments/prod/flights", "DELETE, GET, HEAD, PUT"),
        ("HEAD", "/v1/feedback", "POST"),
        ("PUT", "/", "GET, HEAD, OPTIONS, POST"),
    ):
        answer = guarded.api.request(method, path, headers=headers)
        assert (answer.status_code, answer.headers.get("allow")) == (405, allowed)


def test_an_answer_that_cannot_be_written_down_is_withheld(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: AccessLog, __: Any) -> None:
        raise OSError(28, "No space left on device")

    headers = guarded.token("read")
    monkeypatch.setattr(AccessLog, "append", full)
    answer = guarded.api.request("GET", "/v1/inferences", headers=headers)
    assert answer.status_code == 503
    assert "items" not in answer.json()
    assert answer.headers["retry-after"] == "5"
    assert guarded.status("GET", "/healthz", {}) == 200


def test_a_browser_may_give_the_token_as_password(guarded: Guarded) -> None:
    text = guarded.token("read")["Authorization"].removeprefix("Bearer ")
    answer = guarded.api.request("GET", "/", auth=("anybody", text))
    assert answer.status_code == 200
    assert guarded.api.request("GET", "/", auth=("anybody", text + "x")).status_code == 401


def test_an_expired_and_a_revoked_token_are_refused(guarded: Guarded) -> None:
    token, text = guarded.tokens.create(roles=["read"], lifetime=timedelta(0))
    headers = {"Authorization": f"Bearer {text}"}
    assert guarded.status("GET", "/v1/alarms", headers) == 401
    guarded.tokens.revoke(token.id)
    assert guarded.status("GET", "/v1/alarms", headers) == 401


def test_metrics_can_be_opened_alone(folder: Any, make_api: Any) -> None:
    auth = AuthSettings(required=True, metrics="none")
    guarded = Guarded(make_api(Settings(data=folder.data, auth=auth)))
    assert guarded.status("GET", "/metrics", {}) == 200
    assert guarded.status("GET", "/v1/alarms", {}) == 401


def test_without_tokens_what_is_asked_on_loopback_is_written_down_as_local(
    folder: Any, api: Any
) -> None:
    assert api.get("/v1/alarms").status_code == 200
    (path,) = (folder.data / "access").glob("log-*.jsonl")
    assert json.loads(path.read_text())["caller"] == "local"


@pytest.mark.parametrize("index", [-1, 0])
def test_a_forged_cursor_does_not_lead_into_another_namespace(guarded: Guarded, index: int) -> None:
    verdicts = [{"deployment": "test/flights", "detector": "d", "state": "ok"}] * 3
    secret = Document(
        collection="verdicts",
        key="test/flights|000000000250",
        deployment="test/flights",
        order="2013-01-01T00:00:00Z",
        value={"verdicts": verdicts},
    )
    guarded.api.context.documents.put([secret])
    place = json.dumps(["2013-01-01T00:00:00Z", secret.key, index])
    cursor = base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")
    path = f"/v1/verdicts?deployment=prod/flights&cursor={cursor}"

    answer = guarded.api.request("GET", path, headers=guarded.token("read", namespaces=["prod"]))

    assert answer.status_code == (400 if index < 0 else 200)
    assert answer.json().get("items", []) == []
