"""The gate before the door: tokens of senders, their namespaces, and quotas."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from sidelight.logger import Request
from sidelight.service._ingest_gate import IngestGate
from sidelight.service._settings import LimitSettings, Settings
from sidelight.service._settings_access import AuthSettings, ListenSettings, QuotaSettings
from sidelight.service._tokens import Tokens


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _binary(namespace: str | None, *, token: str = "", body: bytes = b"{}") -> Request:
    lines = ["POST / HTTP/1.1", "ce-specversion: 1.0", "ce-id: 1", "ce-source: /x"]
    lines.append("ce-type: org.kubeflow.serving.inference.request")
    lines += [f"ce-namespace: {namespace}"] if namespace is not None else []
    lines += [f"Authorization: Bearer {token}"] if token else []
    return Request(b"POST", b"/", "\r\n".join([*lines, "", ""]).encode(), body)


def _batch(*namespaces: str, token: str = "") -> Request:
    events = [
        {"specversion": "1.0", "id": str(number), "source": "/x", "type": "t", "namespace": name}
        for number, name in enumerate(namespaces)
    ]
    lines = ["POST / HTTP/1.1", "Content-Type: application/cloudevents-batch+json"]
    lines += [f"Authorization: Bearer {token}"] if token else []
    head = "\r\n".join([*lines, "", ""]).encode()
    return Request(b"POST", b"/", head, json.dumps(events).encode())


def _status(refusal: bytes | None) -> int:
    return 200 if refusal is None else int(refusal[9:12])


def _settings(data: Path, **options: Any) -> Settings:
    return Settings(data=data, **options)


def test_every_address_but_loopback_takes_a_token(tmp_path: Path) -> None:
    _, token = Tokens(tmp_path).create(roles=["ingest"])
    for host, status in (("127.0.0.1", 200), ("::1", 200), ("0.0.0.0", 401), ("host.example", 401)):
        gate = IngestGate(_settings(tmp_path, listen=ListenSettings(host=host)))
        head = b"POST / HTTP/1.1\r\n\r\n"
        assert _status(gate.admit(b"/", head)) == status
        assert _status(gate.admit(b"/events/" + token.encode(), head)) == 200
        bearer = b"POST / HTTP/1.1\r\nauthorization:Bearer " + token.encode() + b"\r\n\r\n"
        assert _status(gate.admit(b"/", bearer)) == 200


def test_ingest_can_be_opened_alone_and_takes_its_role(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    _, reader = tokens.create(roles=["read"])
    _, admin = tokens.create(roles=["admin"])
    gate = IngestGate(_settings(tmp_path, auth=AuthSettings(required=True)))
    assert _status(gate.admit(b"/events/" + reader.encode(), b"")) == 403
    assert _status(gate.admit(b"/events/" + admin.encode(), b"")) == 200
    auth = AuthSettings(required=True, ingest="none")
    assert IngestGate(_settings(tmp_path, auth=auth)).admit(b"/", b"") is None


def test_only_who_may_send_everything_passes_without_a_look_at_events(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    texts = {
        "nobody": "",
        "forged": "sl_0123456789ab_" + 43 * "c",
        "reader": tokens.create(roles=["read"])[1],
        "limited": tokens.create(roles=["ingest"], namespaces=["prod"])[1],
        "sender": tokens.create(roles=["ingest"])[1],
    }
    required = AuthSettings(required=True)
    quotas = {"prod": QuotaSettings(events_per_second=1000)}
    passing = {}
    configured: dict[str, dict[str, Any]] = {
        "open": {},
        "closed": {"auth": required},
        "ingest open": {"auth": AuthSettings(required=True, ingest="none")},
        "quotas": {"quotas": quotas},
        "closed, quotas": {"auth": required, "quotas": quotas},
    }
    for name, options in configured.items():
        gate = IngestGate(_settings(tmp_path, **options))
        who = set()
        for sender, token in texts.items():
            request = _binary("test", token=token)
            if gate.passes(request.target, request.head):
                assert gate.admit(request.target, request.head) is None
                assert gate.check(request) is None
                who.add(sender)
        passing[name] = who

    assert passing == {
        "open": set(texts),
        "closed": {"sender"},
        "ingest open": set(texts),
        "quotas": set(),
        "closed, quotas": set(),
    }


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (lambda token: _binary("prod", token=token), 200),
        (lambda token: _binary("test", token=token), 403),
        (lambda token: _binary(None, token=token), 403),
        (lambda token: _batch("prod", "prod", token=token), 200),
        (lambda token: _batch("prod", "test", token=token), 403),
        (lambda _: _binary("prod"), 401),
    ],
)
def test_a_limited_token_sends_for_its_namespaces_only(
    tmp_path: Path, request_: Any, status: int
) -> None:
    _, token = Tokens(tmp_path).create(roles=["ingest"], namespaces=["prod"])
    gate = IngestGate(_settings(tmp_path, auth=AuthSettings(required=True)))
    assert _status(gate.check(request_(token))) == status


@pytest.mark.parametrize(("deployment", "status"), [("prod/m", 200), ("test/m", 403), ("x", 403)])
def test_a_limited_token_labels_its_namespaces_only(
    tmp_path: Path, deployment: str, status: int
) -> None:
    _, token = Tokens(tmp_path).create(roles=["ingest"], namespaces=["prod"])
    gate = IngestGate(_settings(tmp_path, auth=AuthSettings(required=True)))
    label = {"deployment": deployment, "request_id": "r", "labels": {"late": 1}}
    request = _binary("prod", token=token, body=json.dumps([label]).encode())
    head = request.head.replace(b"org.kubeflow.serving.inference.request", b"io.sidelight.feedback")
    assert _status(gate.check(Request(b"POST", b"/", head, request.body))) == status


def test_a_bomb_does_not_hide_a_namespace_from_the_gate(tmp_path: Path) -> None:
    _, token = Tokens(tmp_path).create(roles=["ingest"], namespaces=["prod"])
    limits = LimitSettings(decompressed=80 << 20)
    gate = IngestGate(_settings(tmp_path, auth=AuthSettings(required=True), limits=limits))
    plain = _batch("test", token=token)
    # More than the default bound, less than the configured one, which the consumer reads with.
    body = gzip.compress(plain.body + b" " * (65 << 20), 1)
    head = plain.head[:-2] + b"content-encoding: gzip\r\n\r\n"
    assert _status(gate.check(Request(b"POST", b"/", head, body))) == 403


def test_a_namespace_that_had_its_share_waits_and_others_do_not(tmp_path: Path) -> None:
    clock = Clock()
    quotas = {"prod": QuotaSettings(events_per_second=2)}
    gate = IngestGate(_settings(tmp_path, quotas=quotas), clock=clock)
    # Ten seconds' worth at once, and what makes it more is taken whole.
    assert [_status(gate.check(_batch("prod", "prod"))) for _ in range(11)] == [200] * 11
    refusal = gate.check(_binary("prod"))
    assert _status(refusal) == 429
    assert refusal is not None
    assert b"\r\nretry-after: 1\r\n" in refusal
    assert _status(gate.check(_binary("test"))) == 200
    # Nothing of a request is taken when one of its namespaces must wait.
    assert _status(gate.check(_batch("test", "prod"))) == 429
    clock.now += 1.0
    assert _status(gate.check(_binary("prod"))) == 200
    clock.now += 3600.0
    assert [_status(gate.check(_batch("prod", "prod"))) for _ in range(11)] == [200] * 11
    assert _status(gate.check(_binary("prod"))) == 429


def test_bytes_are_bounded_and_the_star_stands_for_each_other_namespace(tmp_path: Path) -> None:
    clock = Clock()
    quotas = {"*": QuotaSettings(bytes_per_second=1024), "free": QuotaSettings()}
    gate = IngestGate(_settings(tmp_path, quotas=quotas), clock=clock)
    body = b"x" * 11_000
    assert [_status(gate.check(_binary("a", body=body))) for _ in range(2)] == [200, 429]
    assert [_status(gate.check(_binary("b", body=body))) for _ in range(2)] == [200, 429]
    assert [_status(gate.check(_binary("free", body=body))) for _ in range(5)] == [200] * 5


def test_garbage_is_left_to_the_door(tmp_path: Path) -> None:
    quotas = {"*": QuotaSettings(events_per_second=1)}
    gate = IngestGate(_settings(tmp_path, quotas=quotas))
    assert gate.check(Request(b"POST", b"/", b"POST / HTTP/1.1\r\n\r\n", b"\xff")) is None
