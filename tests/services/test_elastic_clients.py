"""What the official clients send of credentials, and whom they trust: against a server of ours."""

import base64
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.services.elastic_server import Flavour, clients

from sidelight.adapters import ElasticConnection, connect_elastic
from sidelight.adapters._elastic_client import OtherProductError, UnreachableError

_FLAVOURS: tuple[Flavour, ...] = ("elasticsearch", "opensearch")


class Listener:
    """An HTTPS server that remembers headers and answers what it is told."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.product = "Elasticsearch"
        listener = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                listener.headers.append({name.lower(): of for name, of in self.headers.items()})
                body = b'{"error": {"type": "some_exception"}}'
                self.send_response(listener.status)
                self.send_header("content-type", "application/json")
                self.send_header("x-elastic-product", listener.product)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("certificate")
    files = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=search", "-addext"),
            *("subjectAltName=IP:127.0.0.1", "-out", str(files[0]), "-keyout", str(files[1])),
        ],
        check=True,
        capture_output=True,
    )
    return files


@pytest.fixture
def listener(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    monkeypatch.setattr(sys, "path", [*sys.path, str(clients())])
    listener = Listener(*certificate)
    yield listener
    listener.close()


Connect = Callable[..., Any]


@pytest.fixture
def connect(listener: Listener, certificate: tuple[Path, Path]) -> Iterator[Connect]:
    opened: list[Any] = []

    def make(flavour: Flavour, **options: Any) -> Any:
        options.setdefault("ca", certificate[0])
        opened.append(
            connect_elastic(ElasticConnection(url=listener.url, flavour=flavour, **options))
        )
        return opened[-1]

    yield make
    for client in opened:
        client.close()


@pytest.mark.parametrize("flavour", _FLAVOURS)
def test_a_user_is_told_with_every_request(
    listener: Listener, connect: Connect, flavour: Flavour
) -> None:
    client = connect(flavour, username="u", password="p")

    answer = client.request("PUT", "/x", {"a": 1})

    assert answer.status == 200
    told = base64.b64encode(b"u:p").decode()
    assert listener.headers[-1]["authorization"].split()[1] == told


def test_an_api_key_is_told_with_every_request(listener: Listener, connect: Connect) -> None:
    connect("elasticsearch", api_key="abc").request("PUT", "/x", {})

    assert listener.headers[-1]["authorization"] == "ApiKey abc"


@pytest.mark.parametrize("flavour", _FLAVOURS)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 429, 500, 503])
def test_an_error_is_an_answer_with_its_status(
    listener: Listener, connect: Connect, flavour: Flavour, status: int
) -> None:
    listener.status = status

    answer = connect(flavour).request("PUT", "/x", b"{}\n")

    assert answer.status == status
    assert len(listener.headers) == 1


@pytest.mark.parametrize("flavour", _FLAVOURS)
def test_a_certificate_of_nobody_known_is_no_server(connect: Connect, flavour: Flavour) -> None:
    with pytest.raises(UnreachableError):
        connect(flavour, ca=None).request("PUT", "/x", {})


@pytest.mark.parametrize("flavour", _FLAVOURS)
def test_a_certificate_need_not_be_checked(connect: Connect, flavour: Flavour) -> None:
    assert connect(flavour, ca=None, verify=False).request("PUT", "/x", {}).status == 200


def test_a_server_that_is_something_else_is_told_apart(
    listener: Listener, connect: Connect
) -> None:
    listener.product = "Something"

    with pytest.raises(OtherProductError):
        connect("elasticsearch").request("PUT", "/x", {})


@pytest.mark.parametrize("flavour", _FLAVOURS)
def test_nobody_at_the_port_is_unreachable(
    listener: Listener, connect: Connect, flavour: Flavour
) -> None:
    listener.close()

    with pytest.raises(UnreachableError):
        connect(flavour, timeout_s=1.0).request("PUT", "/x", {})
