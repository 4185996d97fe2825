"""Options of the proxy: read, or refused by their name."""

from pathlib import Path
from typing import Any

import pytest

from sidelight.service._proxy_process import Address, ProxyOptions
from sidelight.service.errors import ConfigurationError

_GOOD: dict[str, Any] = {
    "upstream": "http://127.0.0.1:8080",
    "sink": "http://collector:8090/",
    "listen": "0.0.0.0:9081",
    "deployment": "prod/flights",
    "sink_mode": "batch",
    "admin": "127.0.0.1:9082",
    "spool": Path("spool"),
}


@pytest.mark.parametrize(
    ("text", "host", "port", "path"),
    [
        pytest.param("127.0.0.1:9081", "127.0.0.1", 9081, "", id="v4"),
        pytest.param("[::1]:9081", "::1", 9081, "", id="v6"),
        pytest.param("localhost:0", "localhost", 0, "", id="free-port"),
        pytest.param("unix:/run/model.sock", "", 0, "/run/model.sock", id="unix"),
    ],
)
def test_address_is_read(text: str, host: str, port: int, path: str) -> None:
    assert Address.read("listen", text) == Address(host=host, port=port, path=path)


@pytest.mark.parametrize("text", ["", "9081", ":9081", "a:b", "a:65536", "a:-1", "a:", "a:9²"])
def test_wrong_address_is_refused_with_the_option(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--listen: expected HOST:PORT"):
        Address.read("listen", text)


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        ("http://model", Address(host="model", port=80)),
        ("http://model:9000/", Address(host="model", port=9000)),
        ("http://[::1]:9000", Address(host="::1", port=9000)),
        ("unix:/run/m.sock", Address(path="/run/m.sock")),
    ],
)
def test_upstream_is_read(upstream: str, expected: Address) -> None:
    assert ProxyOptions.read(**_GOOD | {"upstream": upstream}).upstream == expected


@pytest.mark.parametrize(
    ("option", "text"),
    [
        pytest.param("sink_mode", "structured", id="mode"),
        pytest.param("deployment", "flights", id="no-namespace"),
        pytest.param("deployment", "/flights", id="empty-namespace"),
        pytest.param("sink", "collector:8090", id="sink-without-scheme"),
        pytest.param("upstream", "https://model", id="tls"),
        pytest.param("upstream", "http://", id="no-host"),
        pytest.param("upstream", "http://model/path", id="path"),
        pytest.param("upstream", "http://model:70000", id="port"),
        pytest.param("upstream", "http://[::1", id="bracket"),
        pytest.param("sink", "http://collector:70000/", id="sink-port"),
        pytest.param("sink", "http:///events", id="sink-without-host"),
        pytest.param("listen", "9081", id="listen"),
        pytest.param("admin", "0.0.0.0:9082", id="admin-for-everybody"),
    ],
)
def test_wrong_option_is_named(option: str, text: str) -> None:
    named = option.replace("_", "-")

    with pytest.raises(ConfigurationError, match=f"--{named}: expected"):
        ProxyOptions.read(**_GOOD | {option: text})


def test_without_a_deployment_the_path_names_it() -> None:
    assert ProxyOptions.read(**_GOOD | {"deployment": None}).deployment is None
