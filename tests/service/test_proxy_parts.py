"""From settings to the parts of the proxy, and what a reload takes over of the old ones."""

from pathlib import Path
from typing import Any

import pytest

from sidelight.logger import Exchange
from sidelight.service._proxy_parts import ProxyParts, build_parts, stranded
from sidelight.service._proxy_settings import ProxySettings
from sidelight.service.errors import ConfigurationError

_HTTP = {"name": "a", "http": {"url": "http://c/"}}


def _settings(folder: Path, **section: Any) -> ProxySettings:
    given = {"upstream": "http://m", "sinks": [_HTTP], "spool": str(folder / "spool")}
    return ProxySettings.model_validate(given | section)


def _again(parts: ProxyParts, settings: ProxySettings, attempt: int = 0) -> ProxyParts:
    known = {outlet.name: outlet for outlet in parts.outlets}
    return build_parts(settings, known, attempt=attempt)


def _exchange(status: int = 200, latency_ms: float = 1.0, head: bytes = b"") -> Exchange:
    return Exchange(
        method=b"POST",
        target=b"/v1/models/m:predict",
        request_head=b"POST / HTTP/1.1\r\n" + head + b"\r\n",
        request_body=b"",
        response_head=b"",
        response_body=b"",
        status=status,
        started_ns=0,
        finished_ns=0,
        latency_ms=latency_ms,
    )


def test_bounds_of_the_file_are_those_of_the_parts(tmp_path: Path) -> None:
    sink = _HTTP | {
        "memory": "1MiB",
        "spool_max": "3MiB",
        "batch": {"events": 7, "bytes": "2KiB", "linger": "20ms"},
    }

    parts = build_parts(_settings(tmp_path, sinks=[sink], body_limit="1KiB", memory="4KiB"))

    (outlet,) = parts.outlets
    assert (parts.limits.capture_limit, parts.limits.max_captured_bytes) == (1024, 4096)
    assert outlet.limits.memory_bytes == 1 << 20
    assert (outlet.limits.batch_events, outlet.limits.batch_bytes) == (7, 2048)
    assert outlet.limits.linger_s == pytest.approx(0.02)
    assert outlet.spool is not None
    assert (outlet.spool.folder, outlet.spool.max_bytes) == (tmp_path / "spool" / "a", 3 << 20)


def test_what_is_not_said_is_as_the_kind_of_sink_needs_it(tmp_path: Path) -> None:
    sinks = [_HTTP, {"name": "b", "files": {"url": str(tmp_path / "files")}}]

    parts = build_parts(_settings(tmp_path, sinks=sinks))

    http, files = (outlet.limits for outlet in parts.outlets)
    assert http.linger_s < 1 < files.linger_s
    assert http.batch_events < files.batch_events


def test_patterns_are_added_to_what_is_skipped_anyway(tmp_path: Path) -> None:
    selection = build_parts(
        _settings(tmp_path, only={"paths": ["/v1/*"]}, skip={"paths": ["*/internal/*"]})
    ).selection

    captured = [
        selection.captures(b"POST", target, b"")
        for target in (b"/v1/models/m:predict", b"/v2/a", b"/v1/internal/a", b"/v1/health")
    ]

    assert captured == [True, False, False, False]


def test_without_sampling_nothing_is_asked(tmp_path: Path) -> None:
    parts = build_parts(_settings(tmp_path, sampling={"keep": {"errors": True}}))

    assert parts.sampling is None


def test_sampling_keeps_what_it_is_told_to_keep(tmp_path: Path) -> None:
    sampling = build_parts(
        _settings(
            tmp_path,
            sampling={
                "rate": 0,
                "rules": [{"status": [404, "5xx"], "rate": 1}],
                "keep": {"slower_than": "500ms", "header": "X-Keep: 1"},
            },
        )
    ).sampling
    assert sampling is not None

    rates = [
        sampling.rate_of(exchange, b"r", "prod/m")
        for exchange in (
            _exchange(),
            _exchange(404),
            _exchange(503),
            _exchange(400),
            _exchange(latency_ms=501),
            _exchange(head=b"X-Keep: 1\r\n"),
            _exchange(head=b"X-Keep: 0\r\n"),
        )
    ]

    assert rates == [None, 1, 1, None, 1, 1, None]


def test_a_sink_that_did_not_change_goes_on(tmp_path: Path) -> None:
    before = build_parts(_settings(tmp_path))

    after = _again(before, _settings(tmp_path, sampling={"rate": 0.5}))

    assert after.outlets[0] is before.outlets[0]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"memory": "1MiB"}, id="memory"),
        pytest.param({"spool_max": "1MiB"}, id="spool"),
        pytest.param({"overflow": "drop_oldest"}, id="overflow"),
        pytest.param({"http": {"url": "http://d/"}}, id="address"),
        pytest.param({"http": {"url": "http://c/", "headers": {"X-A": "1"}}}, id="header"),
    ],
)
def test_a_sink_that_changed_is_made_anew(change: dict[str, Any], tmp_path: Path) -> None:
    before = build_parts(_settings(tmp_path))

    after = _again(before, _settings(tmp_path, sinks=[_HTTP | change]))

    assert not after.outlets[0].is_same(before.outlets[0])


def test_a_secret_of_kafka_that_changed_where_it_is_makes_the_sink_anew(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("first-password")
    kafka = {"brokers": "127.0.0.1:1", "topic": "t"}
    kafka_from = {"sasl.password": str(tmp_path / "password")}
    sink = {"name": "a", "kafka": kafka | {"config_from": kafka_from}}
    settings = _settings(tmp_path, sinks=[sink])
    before = build_parts(settings)
    same = _again(before, settings)
    (tmp_path / "password").write_text("second-password")

    after = _again(before, settings)

    assert same.outlets[0] is before.outlets[0]
    assert not after.outlets[0].is_same(before.outlets[0])
    assert "first-password" not in repr(before.outlets)


def test_a_token_of_a_sink_of_http_is_its_own_affair(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first-token")
    http = {"url": "http://c/", "headers_from": {"Authorization": str(tmp_path / "token")}}
    settings = _settings(tmp_path, sinks=[{"name": "a", "http": http}])
    before = build_parts(settings)
    (tmp_path / "token").write_text("second-token")

    after = _again(before, settings)

    assert after.outlets[0] is before.outlets[0]


def test_what_could_not_be_had_is_tried_again(tmp_path: Path) -> None:
    before = build_parts(_settings(tmp_path))

    after = _again(before, _settings(tmp_path), attempt=1)

    assert not after.outlets[0].is_same(before.outlets[0])


@pytest.mark.parametrize(
    ("section", "key"),
    [
        pytest.param(
            {"sinks": [{"name": "a", "http": {"url": "http://c/", "headers_from": {"X": "/no"}}}]},
            "proxy.sinks[0].http.headers_from.X",
            id="secret",
        ),
        pytest.param(
            {"sinks": [_HTTP | {"http": {"url": "http://c/", "tls": {}}}]},
            "proxy.sinks[0].http.tls",
            id="tls-without-https",
        ),
        pytest.param(
            {"sinks": [{"name": "a", "kafka": {"brokers": "b:1", "config": {"no.such": "1"}}}]},
            "proxy.sinks[0]",
            id="kafka-setting",
        ),
        pytest.param(
            {"sinks": [{"name": "a", "files": {"url": __file__}}]}, "proxy.sinks[0]", id="no-folder"
        ),
        pytest.param(
            {"upstream": "https://m", "tls": {"ca": "/no"}}, "proxy.tls.ca", id="authority"
        ),
    ],
)
def test_what_cannot_be_made_is_named_with_its_key(
    section: dict[str, Any], key: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build_parts(_settings(tmp_path, **section))

    assert str(caught.value).startswith(f"{key}: ")


def test_events_of_sinks_that_are_not_configured_are_found(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    for folder in ("", "a", "b"):
        (tmp_path / "spool" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "spool" / folder / "0-0.spool1").touch()

    assert stranded(settings) == [tmp_path / "spool", tmp_path / "spool" / "b"]
