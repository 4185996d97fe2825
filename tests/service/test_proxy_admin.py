"""The admin port: health, readiness, and metrics that a real parser reads."""

import re
from collections import Counter
from pathlib import Path

import orjson
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from sidelight.logger import Connections, Emitter, HttpSink, Request, SpoolFolder, Upstream
from sidelight.service._proxy_metrics import OUTCOMES, ProxyState
from sidelight.service._proxy_secrets import admin_token
from sidelight.service._proxy_services import Admin
from sidelight.service._proxy_settings import ProxySettings


def _state() -> ProxyState:
    return ProxyState(connections=Connections(), upstream=Upstream("127.0.0.1", 1))


def _get(admin: Admin, route: bytes) -> tuple[int, bytes]:
    answers: list[bytes] = []
    assert admin.admit(b"GET", route, b"") == 0
    admin.handle(Request(b"GET", route, b"", b""), answers.append)
    head, _, body = answers[0].partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def _admin(state: ProxyState, folder: Path, deployment: str | None = "prod/flights") -> Admin:
    emitter = Emitter.of(HttpSink("http://127.0.0.1:1/"), spool=SpoolFolder(folder=folder))
    return Admin(emitter, state, lambda: deployment)


def _families(admin: Admin) -> dict[str, Metric]:
    status, text = _get(admin, b"/metrics")
    families = list(text_string_to_metric_families(text.decode()))
    assert status == 200
    assert max(Counter(family.name for family in families).values()) == 1
    return {family.name: family for family in families}


def test_metrics_are_what_a_parser_of_prometheus_reads(tmp_path: Path) -> None:
    state = _state()
    state.reloads["applied"] += 2
    state.connections.requests = 7

    families = _families(_admin(state, tmp_path))

    requests = families["sidelight_capture_requests"].samples
    reloads = families["sidelight_capture_reloads"].samples
    assert [sample.value for sample in requests] == [7]
    assert {sample.labels["outcome"]: sample.value for sample in reloads} == {
        "applied": 2,
        "partly": 0,
        "refused": 0,
    }
    assert set(OUTCOMES) == {sample.labels["outcome"] for sample in reloads}


def test_metrics_ask_for_the_token_of_now_and_health_never_does(tmp_path: Path) -> None:
    place = tmp_path / "token"
    place.write_text("first\n")
    settings = ProxySettings(admin="0.0.0.0:0", admin_token_from=str(place))
    emitter = Emitter.of(
        HttpSink("http://127.0.0.1:1/"), spool=SpoolFolder(folder=tmp_path / "spool")
    )
    admin = Admin(emitter, _state(), lambda: None, admin_token(settings))

    def status(token: str, route: bytes = b"/metrics") -> int:
        answers: list[bytes] = []
        head = f"GET / HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        admin.handle(Request(b"GET", route, head, b""), answers.append)
        return int(answers[0].split()[1])

    assert [status("first"), status("other"), status("")] == [200, 401, 401]
    place.write_text("second")
    assert [status("first"), status("second")] == [401, 200]
    place.unlink()
    assert [status("second"), status("")] == [401, 401]
    assert [status("", b"/healthz"), status("", b"/readyz")] == [200, 200]


def test_an_admin_port_that_others_reach_takes_a_token() -> None:
    with pytest.raises(ValidationError, match="admin_token_from"):
        ProxySettings(admin="0.0.0.0:9082")
    assert ProxySettings(admin="127.0.0.1:9082").admin_token_from is None


def test_names_of_metrics_follow_the_conventions(tmp_path: Path) -> None:
    admin = _admin(_state(), tmp_path)
    _, text = _get(admin, b"/metrics")
    kinds = dict(
        line.split()[2:4] for line in text.decode().splitlines() if line.startswith("# TYPE ")
    )

    wrong = [
        name
        for name, kind in kinds.items()
        if not re.fullmatch(r"sidelight_capture_[a-z0-9_]+", name)
        or (kind == "counter") != name.endswith("_total")
        or name.endswith(("_count", "_sum", "_bucket"))
        or re.search(r"_(ms|milliseconds|minutes|kb|mb|kib|mib|percent)(_|$)", name)
    ]

    assert wrong == []
    assert all(family.documentation for family in _families(admin).values())


def test_every_sample_is_labelled_with_its_deployment(tmp_path: Path) -> None:
    families = _families(_admin(_state(), tmp_path, 'a/b"\\c'))

    labels = {
        (sample.labels.get("namespace"), sample.labels.get("deployment"))
        for family in families.values()
        for sample in family.samples
    }

    assert labels == {("a", 'b"\\c')}


def test_health_is_told_as_long_as_the_process_answers(tmp_path: Path) -> None:
    state = _state()
    admin = _admin(state, tmp_path)

    state.is_stopping = True

    assert _get(admin, b"/healthz") == (200, b'{"status":"ok"}')


def test_readiness_ends_with_the_stop_and_not_with_a_wrong_file_or_a_model_that_is_away(
    tmp_path: Path,
) -> None:
    state = _state()
    admin = _admin(state, tmp_path)
    state.is_valid = False
    state.connections.upstream_errors = 99

    working = _get(admin, b"/readyz")
    state.is_stopping = True
    stopping = _get(admin, b"/readyz")

    assert (working[0], orjson.loads(working[1])) == (
        200,
        {"status": "ok", "configuration_valid": False},
    )
    assert (stopping[0], orjson.loads(stopping[1])) == (503, {"status": "stopping"})


@pytest.mark.parametrize("target", [b"/healthz", b"/readyz", b"/metrics"])
def test_head_is_taken_as_get_is(target: bytes, tmp_path: Path) -> None:
    assert _admin(_state(), tmp_path).admit(b"HEAD", target, b"") == 0


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        pytest.param(b"POST", b"/metrics", b"405", id="method"),
        pytest.param(b"GET", b"/", b"404", id="route"),
        pytest.param(b"GET", b"/metrics/", b"404", id="slash"),
    ],
)
def test_anything_else_is_refused(
    method: bytes, target: bytes, status: bytes, tmp_path: Path
) -> None:
    answer = _admin(_state(), tmp_path).admit(method, target, b"")

    assert isinstance(answer, bytes)
    assert answer.split()[1] == status
