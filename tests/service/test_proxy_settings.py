"""The section of the proxy: what is read, what is refused with its path, what is never shown."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from sidelight.service import (
    _proxy_settings,
    _proxy_settings_redaction,
    _proxy_settings_sinks,
)
from sidelight.service._proxy_configuration import ProxyConfiguration
from sidelight.service._proxy_secrets import read_secret
from sidelight.service._proxy_settings import ProxyFile, ProxySettings
from sidelight.service._proxy_settings_sinks import TlsSettings
from sidelight.service._proxy_tls import tls_context
from sidelight.service._settings import load_settings, read_settings
from sidelight.service.errors import ConfigurationError

_SMALL: dict[str, Any] = {"upstream": "http://model:8080", "sink": "http://collector:8090/"}
_SECRET = "5up3r-s3cr3t"


def _read(folder: Path, proxy: Any, **options: str | None) -> ProxySettings:
    """Read a file with that section; the options replace the first dot of a key by two `_`."""
    path = folder / "sidelight.yaml"
    # JSON is YAML.
    path.write_bytes(orjson.dumps({"proxy": proxy}))
    given = {key.replace("__", "."): value for key, value in options.items()}
    return ProxyConfiguration(file=path, options=given).read()


def _refused(folder: Path, proxy: Any, **options: str | None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        _read(folder, proxy, **options)
    return str(caught.value)


def test_two_options_are_enough() -> None:
    settings = ProxyConfiguration(file=None, options=_SMALL).read()

    (sink,) = settings.all_sinks
    assert settings.upstream == "http://model:8080"
    assert (settings.listen, settings.admin) == ("0.0.0.0:9081", "127.0.0.1:9082")
    assert sink.name == "sink"
    assert sink.http is not None
    assert (sink.http.url, sink.http.mode) == ("http://collector:8090/", "batch")


def test_an_option_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDELIGHT_PROXY__LISTEN", "127.0.0.1:2")
    monkeypatch.setenv("SIDELIGHT_PROXY__DEPLOYMENT", "environment/b")
    monkeypatch.setenv("SIDELIGHT_PROXY__SAMPLING__RATE", "0.25")

    settings = _read(
        tmp_path,
        _SMALL | {"listen": "127.0.0.1:1", "deployment": "file/a", "sampling": {"rate": 0.5}},
        listen="127.0.0.1:3",
        deployment=None,
    )

    assert settings.listen == "127.0.0.1:3"
    assert settings.deployment == "environment/b"
    assert settings.sampling.rate == 0.25


def test_the_environment_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDELIGHT_PROXY__UPSTREAM", "unix:/run/model.sock")
    monkeypatch.setenv("SIDELIGHT_PROXY__SINKS", '[{"name": "a", "http": {"url": "http://c/"}}]')

    settings = ProxyConfiguration(file=None, options={}).read()

    assert settings.upstream == "unix:/run/model.sock"
    assert [sink.name for sink in settings.all_sinks] == ["a"]


def test_the_sink_of_the_command_line_takes_the_place_of_all_others(tmp_path: Path) -> None:
    sinks = [
        {"name": "a", "http": {"url": "http://a/"}},
        {"name": "b", "http": {"url": "http://b"}},
    ]

    settings = _read(tmp_path, {"upstream": "http://m", "sinks": sinks}, sink="http://c/")

    assert [sink.name for sink in settings.all_sinks] == ["sink"]


def test_the_only_sink_keeps_its_spool_where_it_was_and_others_have_folders_in_it(
    tmp_path: Path,
) -> None:
    sinks = [{"name": "a", "http": {"url": "http://a/"}}]

    one = _read(tmp_path, _SMALL | {"spool": "/s"})
    several = _read(tmp_path, {"upstream": "http://m", "sinks": sinks, "spool": "/s"})

    assert [one.spool_of(sink) for sink in one.all_sinks] == [Path("/s")]
    assert [several.spool_of(sink) for sink in several.all_sinks] == [Path("/s/a")]


def test_an_upstream_of_grpc_is_enough(tmp_path: Path) -> None:
    settings = _read(tmp_path, None, sink="http://c/", grpc__upstream="127.0.0.1:8001")

    assert settings.upstream is None
    assert settings.grpc is not None
    assert settings.grpc.listen == "0.0.0.0:9083"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"sink": "http://c/"}, "--upstream: expected the model server", id="upstream"),
        pytest.param({"upstream": "http://m"}, "--sink: expected where events go", id="sink"),
        pytest.param(
            {**_SMALL, "sink_mode": "structured"}, "--sink-mode: Input should be", id="mode"
        ),
        pytest.param(
            {**_SMALL, "grpc.upstream": "model"}, "--grpc-upstream: expected HOST:PORT", id="grpc"
        ),
    ],
)
def test_what_is_missing_or_wrong_is_named_as_an_option(
    options: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}"):
        ProxyConfiguration(file=None, options=options).read()


_HTTP = {"name": "a", "http": {"url": "http://c/"}}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        pytest.param({"spol": "x"}, "proxy.spol: unknown key; did you mean spool?", id="typo"),
        pytest.param(
            {"sampling": {"rate": 2}},
            "proxy.sampling.rate: Input should be less than or equal to 1, got 2",
            id="rate",
        ),
        pytest.param(
            {"sampling": {"rules": [{"rate": 1, "status": "6xx"}]}},
            "proxy.sampling.rules[0].status: expected statuses as 404 or classes as 5xx, got '6xx'",
            id="status",
        ),
        pytest.param(
            {"sampling": {"key": "X-User"}},
            "proxy.sampling.key: expected request_id or header:NAME, got 'X-User'",
            id="key",
        ),
        pytest.param(
            {"body_limit": "11 megs"},
            "proxy.body_limit: expected a size such as 16MiB (KiB, MiB, GiB, TiB), got '11 megs'",
            id="size",
        ),
        pytest.param(
            {"grace": 10},
            "proxy.grace: expected a duration with its unit (ms, s, m, h, d) as in 60s, got 10",
            id="duration",
        ),
        pytest.param(
            {"admin": "0.0.0.0:1"},
            "proxy.admin: expected a loopback address, or admin_token_from, got 0.0.0.0:1",
            id="admin",
        ),
        pytest.param(
            {"sinks": [{"name": "a"}], "sink": None},
            "proxy.sinks[0]: expected exactly one of http, kafka, files, got none",
            id="no-kind",
        ),
        pytest.param(
            {"sinks": [_HTTP, _HTTP], "sink": None},
            "proxy.sinks: expected a name of its own for each sink, got a twice",
            id="twice",
        ),
        pytest.param(
            {"sinks": [{**_HTTP, "name": "../a"}], "sink": None},
            "proxy.sinks[0].name: expected up to 63 lower-case letters, digits, '.', '-' or '_', "
            "got '../a'",
            id="sink-name",
        ),
        pytest.param({"sinks": [_HTTP]}, "proxy: expected one of sink and sinks, got both", id="2"),
        pytest.param(
            {"sinks": [{**_HTTP, "batch": {"event": 1}}], "sink": None},
            "proxy.sinks[0].batch.event: unknown key; did you mean events?",
            id="nested-typo",
        ),
        pytest.param(
            {"redaction": {"rules": [{"action": "mask", "column": "x", "tensor": "y"}]}},
            "proxy.redaction.rules[0]: rule: expected exactly one of column, tensor, path, header, "
            "got column and tensor; an empty one is none",
            id="two-places",
        ),
        pytest.param(
            {"redaction": {"rules": [{"action": "drop", "path": "a.b"}]}},
            "proxy.redaction.rules[0]: path: expected one as $.a.b[*].c or $..c, with members, "
            "indices and wildcards, got 'a.b'",
            id="json-path",
        ),
        pytest.param(
            {"redaction": {"rules": [{"action": "hmac", "column": "a"}]}},
            "proxy.redaction: expected key_file or key_env for the action hmac, got neither",
            id="no-key",
        ),
        pytest.param(
            {"tls": {"verify": False}},
            "proxy: expected tls beside an upstream with https, got another one",
            id="tls",
        ),
        pytest.param({"headers": ["a b"]}, "proxy.headers: expected names of headers, got 'a b'"),
        pytest.param(
            {"grpc": {"listen": "0.0.0.0:9083"}},
            "proxy.grpc.upstream: Field required",
            id="grpc-without-upstream",
        ),
    ],
)
def test_a_wrong_key_is_named_with_its_path(
    section: dict[str, Any], message: str, tmp_path: Path
) -> None:
    assert _refused(tmp_path, _SMALL | section) == message


def test_serve_refuses_a_wrong_section_of_the_proxy_too(tmp_path: Path) -> None:
    path = tmp_path / "sidelight.yaml"
    path.write_text("proxy: {upstrem: 'http://m'}")

    with pytest.raises(ConfigurationError, match=r"^proxy\.upstrem: unknown key"):
        load_settings(path, {})


def test_what_the_proxy_is_to_do_is_no_business_of_serve(tmp_path: Path) -> None:
    path = tmp_path / "sidelight.yaml"
    path.write_text("proxy: {upstream: 'http://m', sink: 'http://c/'}\nlisten: {port: 7}")

    settings = load_settings(path, {})

    assert (settings.listen.port, settings.proxy) == (7, None)


def test_words_that_older_yaml_takes_for_truths_stay_words(tmp_path: Path) -> None:
    path = tmp_path / "sidelight.yaml"
    path.write_text(
        "proxy:\n"
        "  upstream: http://m\n"
        "  sink: http://c/\n"
        "  request_id: no\n"
        "  redaction: {key_env: K, rules: [{column: off, on: request, action: mask}]}\n"
    )

    settings = ProxyConfiguration(file=path, options={}).read()

    assert settings.request_id is False
    assert settings.redaction.rules[0].on == "request"
    assert settings.redaction.rules[0].column == "off"


@pytest.mark.parametrize(
    "section",
    [
        pytest.param({"sink": f"http://user:{_SECRET}@c/"}, id="password-in-the-sink"),
        pytest.param({"upstream": f"http://user:{_SECRET}@c/"}, id="password-in-the-upstream"),
        pytest.param({"upstream": f"http://user:{_SECRET}@[c/"}, id="password-in-no-address"),
        pytest.param({"listen": f"http://user:{_SECRET}@c/"}, id="password-in-a-wrong-place"),
        pytest.param({"sinks": f"http://user:{_SECRET}@c/"}, id="password-in-place-of-a-list"),
        pytest.param({"sinks": [{"http": {"headers": {"Authorization": _SECRET}}}]}, id="header"),
        pytest.param({"sinks": [{"http": {"headers": {"X-A": [_SECRET]}}}]}, id="list-as-header"),
        pytest.param({"sinks": [{"http": {"headers_from": {"X": [_SECRET]}}}]}, id="header-from"),
        pytest.param({"sinks": [{"http": {"headers": _SECRET}}]}, id="text-as-headers"),
        pytest.param({"sinks": [{"kafka": {"config": {"sasl.password": _SECRET}}}]}, id="kafka"),
        pytest.param({"sinks": [{"kafka": {"config": {"a": [_SECRET]}}}]}, id="kafka-list"),
        pytest.param({"redaction": {"key_file": [_SECRET]}}, id="key-file"),
        pytest.param({"redaction": {"key_env": [_SECRET]}}, id="key-variable"),
    ],
)
def test_no_message_shows_a_secret(section: dict[str, Any], tmp_path: Path) -> None:
    assert _SECRET not in _refused(tmp_path, _SMALL | section)


def test_no_representation_shows_where_secrets_or_headers_are(tmp_path: Path) -> None:
    http = {"url": "http://c/", "headers": {"X-A": _SECRET}, "headers_from": {"X-B": _SECRET}}
    kafka = {"brokers": "b:1", "config": {"a": _SECRET}, "config_from": {"b": _SECRET}}

    settings = _read(
        tmp_path,
        {
            "upstream": "http://m",
            "sinks": [{"name": "a", "http": http}, {"name": "b", "kafka": kafka}],
            "redaction": {"key_env": _SECRET},
        },
    )

    assert _SECRET not in repr(settings)


def test_a_secret_is_read_from_its_file_or_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(f"{_SECRET}\n")
    monkeypatch.setenv("TOKEN", _SECRET)

    assert read_secret("a.b", str(tmp_path / "token")) == _SECRET
    assert read_secret("a.b", "env:TOKEN") == _SECRET


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(_SECRET, id="the-secret-itself"),
        pytest.param(f"env:{_SECRET}", id="no-variable"),
        pytest.param("/", id="a-folder"),
        pytest.param("a\0b", id="no-path"),
    ],
)
def test_a_secret_that_cannot_be_had_is_named_and_not_shown(place: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^a\.b: expected") as caught:
        read_secret("a.b", place)

    assert _SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        pytest.param({"ca": "absent.pem"}, "ca", id="no-file"),
        pytest.param({"ca": __file__}, "ca", id="no-certificate"),
        pytest.param({"certificate": __file__}, "certificate", id="no-pair"),
        pytest.param({"key": __file__}, "key", id="key-alone"),
    ],
)
def test_a_file_of_tls_that_cannot_be_used_is_named_by_its_key(
    settings: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"^proxy\.tls\.{key}: expected"):
        tls_context("proxy.tls", TlsSettings(**settings))


def _models() -> list[type[BaseModel]]:
    return [
        value
        for module in (_proxy_settings, _proxy_settings_redaction, _proxy_settings_sinks)
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, BaseModel)
        and value.__module__ == module.__name__
    ]


@pytest.mark.parametrize("model", _models(), ids=lambda model: model.__name__)
def test_every_setting_is_documented(model: type[BaseModel]) -> None:
    undocumented = [name for name, field in model.model_fields.items() if not field.description]

    assert undocumented == []


_KEYS = st.sampled_from(
    sorted({name for model in _models() for name in model.model_fields})
) | st.text(max_size=4)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 1 << 40) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(_KEYS, _VALUES, max_size=5))
def test_whatever_stands_in_the_section_is_read_or_refused_in_words(section: Any) -> None:
    problem = "proxy"
    try:
        read_settings(ProxyFile, {"proxy": section}, {})
    except ConfigurationError as error:
        problem = str(error)

    assert all(line.startswith("proxy") for line in problem.splitlines())
