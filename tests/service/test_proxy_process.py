"""The process of the proxy: addresses that cannot be had."""

import socket
from pathlib import Path

import pytest

from sidelight.service._proxy_configuration import ProxyConfiguration
from sidelight.service._proxy_process import run_proxy
from sidelight.service.errors import ServiceError


def _configuration(folder: Path, **changed: str) -> ProxyConfiguration:
    options = {
        "upstream": "http://127.0.0.1:8080",
        "sink": "http://127.0.0.1:8090/",
        "listen": "127.0.0.1:0",
        "admin": "127.0.0.1:0",
        "spool": str(folder / "spool"),
    }
    return ProxyConfiguration(file=None, options=options | changed)


@pytest.mark.parametrize("option", ["listen", "admin"])
def test_a_port_in_use_is_named_with_its_option(option: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        configuration = _configuration(tmp_path, **{option: address})

        with pytest.raises(ServiceError, match=f"--{option}: cannot listen on {address}"):
            run_proxy(configuration)


def test_a_socket_in_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    configuration = _configuration(tmp_path, listen=f"unix:{tmp_path}/no/x.sock")

    with pytest.raises(ServiceError, match=r"--listen: cannot listen on unix:.*No such file"):
        run_proxy(configuration)


def test_a_spool_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("no folder")

    with pytest.raises(ServiceError, match="spool folder"):
        run_proxy(_configuration(tmp_path))
