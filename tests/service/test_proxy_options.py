"""Options of the proxy: read, or refused by their name before anything starts."""

from pathlib import Path
from typing import Any

import pytest
import typer

from sidelight.service._cli import app
from sidelight.service._proxy_address import Address
from sidelight.service._proxy_configuration import ProxyConfiguration
from sidelight.service._proxy_settings import GrpcSettings, ProxySettings
from sidelight.service.errors import ConfigurationError

_GOOD: dict[str, Any] = {
    "upstream": "http://127.0.0.1:8080",
    "sink": "http://collector:8090/",
    "listen": "0.0.0.0:9081",
    "deployment": "prod/flights",
    "sink_mode": "batch",
    "admin": "127.0.0.1:9082",
    "spool": "spool",
}


def _read(**changed: str | None) -> ProxySettings:
    return ProxyConfiguration(file=None, options=_GOOD | changed).read()


@pytest.mark.parametrize(
    ("text", "host", "port", "path"),
    [
        pytest.param("127.0.0.1:9081", "127.0.0.1", 9081, "", id="v4"),
        pytest.param("[::1]:9081", "::1", 9081, "", id="v6"),
        pytest.param("localhost:0", "localhost", 0, "", id="free-port"),
        pytest.param("unix:/run/model.sock", "", 0, "/run/model.sock", id="unix"),
    ],
)
def test_address_is_read_and_shown_as_it_was_given(
    text: str, host: str, port: int, path: str
) -> None:
    address = Address.read(text)

    assert address == Address(host=host, port=port, path=path)
    assert str(address) == text


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        ("http://model", Address(host="model", port=80)),
        ("http://model:9000/", Address(host="model", port=9000)),
        ("http://[::1]:9000", Address(host="::1", port=9000)),
        ("https://model", Address(host="model", port=443, is_tls=True)),
        ("unix:/run/m.sock", Address(path="/run/m.sock")),
    ],
)
def test_upstream_is_read(upstream: str, expected: Address) -> None:
    assert Address.read_upstream(upstream) == expected


@pytest.mark.parametrize(
    ("option", "text"),
    [
        pytest.param("deployment", "flights", id="no-namespace"),
        pytest.param("deployment", "/flights", id="empty-namespace"),
        pytest.param("deployment", "a/b/c", id="three-segments"),
        pytest.param("deployment", "a/b\nc", id="line-break"),
        pytest.param("deployment", "a/b c", id="blank"),
        pytest.param("sink", "collector:8090", id="sink-without-scheme"),
        pytest.param("sink", "http://collector:70000/", id="sink-port"),
        pytest.param("sink", "http:///events", id="sink-without-host"),
        pytest.param("sink", "http://c/a b", id="sink-with-blank"),
        pytest.param("sink", "http://c/\u20ac", id="sink-not-encoded"),
        pytest.param("upstream", "ftp://model", id="scheme"),
        pytest.param("upstream", "http://", id="no-host"),
        pytest.param("upstream", "http://model/path", id="path"),
        pytest.param("upstream", "http://model:70000", id="port"),
        pytest.param("upstream", "http://[::1", id="bracket"),
        pytest.param("upstream", "unix:", id="upstream-without-path"),
        pytest.param("listen", "unix:", id="listen-without-path"),
        pytest.param("listen", "", id="nothing"),
        pytest.param("listen", "9081", id="port-alone"),
        pytest.param("listen", ":9081", id="no-host-to-listen-on"),
        pytest.param("listen", "a:b", id="no-number"),
        pytest.param("listen", "a:65536", id="large-number"),
        pytest.param("listen", "a:-1", id="negative"),
        pytest.param("listen", "a:9\u00b2", id="superscript"),
        pytest.param("listen", "a:\u0669", id="other-digits"),
        pytest.param("listen", "::1:80", id="no-brackets"),
        pytest.param("admin", "unix:", id="admin-without-path"),
        pytest.param("admin", "0.0.0.0:9082", id="admin-for-everybody"),
        pytest.param("grpc.upstream", "http://a:1", id="grpc-with-scheme"),
        pytest.param("grpc.listen", "9083", id="grpc-port-alone"),
    ],
)
def test_what_would_fail_later_is_refused_at_once(option: str, text: str) -> None:
    named = option.replace("_", "-").replace(".", "-")

    with pytest.raises(ConfigurationError, match=f"^--{named}: expected"):
        _read(**{"grpc.upstream": "127.0.0.1:1", option: text})


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^--sink-mode: Input should be 'batch' or"):
        _read(sink_mode="structured")


@pytest.mark.parametrize("option", ["sink", "upstream"])
def test_a_password_in_an_address_is_refused_and_not_shown(option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^--{option}: expected") as raised:
        _read(**{option: "http://user:secret@127.0.0.1/"})

    assert "secret" not in str(raised.value)


def test_without_a_deployment_the_path_names_it() -> None:
    assert _read(deployment=None).deployment is None


def test_what_was_not_said_has_its_default() -> None:
    settings = _read(listen=None, admin=None, spool=None, sink_mode=None)

    assert (settings.listen, settings.admin) == ("0.0.0.0:9081", "127.0.0.1:9082")
    assert settings.spool == Path("sidelight-spool")


def test_the_help_tells_the_defaults_that_are_used() -> None:
    group: Any = typer.main.get_command(app)
    told = {option.name: option.show_default for option in group.commands["proxy"].params}
    defaults = ProxySettings.model_fields

    for name in ("listen", "admin", "sink_mode"):
        assert told[name] == defaults[name].default
    assert Path(told["spool"]) == defaults["spool"].default
    assert told["grpc_listen"] == GrpcSettings.model_fields["listen"].default
