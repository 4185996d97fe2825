"""Options of the proxy that look right at first sight, and addresses that cannot be had."""

import socket
from pathlib import Path
from typing import Any

import pytest

from sidelight.service._proxy_process import Address, ProxyOptions, run_proxy
from sidelight.service.errors import ConfigurationError, ServiceError

_GOOD: dict[str, Any] = {
    "upstream": "http://127.0.0.1:8080",
    "sink": "http://127.0.0.1:8090/",
    "listen": "127.0.0.1:0",
    "deployment": None,
    "sink_mode": "batch",
    "admin": "127.0.0.1:0",
    "spool": Path("spool"),
}


@pytest.mark.parametrize(
    ("option", "text"),
    [
        pytest.param("upstream", "unix:", id="upstream-without-path"),
        pytest.param("listen", "unix:", id="listen-without-path"),
        pytest.param("admin", "unix:", id="admin-without-path"),
        pytest.param("listen", "::1:80", id="no-brackets"),
        pytest.param("deployment", "a/b/c", id="three-segments"),
        pytest.param("deployment", "a/b\nc", id="line-break"),
        pytest.param("deployment", "a/b c", id="blank"),
        pytest.param("sink", "http://c/a b", id="sink-with-blank"),
        pytest.param("sink", "http://c/\u20ac", id="sink-not-encoded"),
    ],
)
def test_what_would_fail_later_is_refused_at_once(option: str, text: str) -> None:
    named = option.replace("_", "-")

    with pytest.raises(ConfigurationError, match=f"^--{named}: expected"):
        ProxyOptions.read(**_GOOD | {option: text})


@pytest.mark.parametrize("option", ["sink", "upstream"])
def test_a_password_in_an_address_is_refused_and_not_shown(option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^--{option}: expected") as raised:
        ProxyOptions.read(**_GOOD | {option: "http://user:secret@127.0.0.1/"})

    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("text", ["127.0.0.1:80", "[::1]:80", "unix:/run/x.sock"])
def test_an_address_is_shown_as_it_was_given(text: str) -> None:
    assert str(Address.read("listen", text)) == text


@pytest.mark.parametrize("option", ["listen", "admin"])
def test_a_port_in_use_is_named_with_its_option(option: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        options = ProxyOptions.read(**_GOOD | {option: address, "spool": tmp_path / "spool"})

        with pytest.raises(ServiceError, match=f"--{option}: cannot listen on {address}"):
            run_proxy(options)


def test_a_socket_in_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    options = ProxyOptions.read(
        **_GOOD | {"listen": f"unix:{tmp_path}/no/x.sock", "spool": tmp_path / "spool"}
    )

    with pytest.raises(ServiceError, match=r"--listen: cannot listen on unix:.*No such file"):
        run_proxy(options)
