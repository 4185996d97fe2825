"""Tokens and TLS with the real process tree, and clients that we did not write."""

import base64
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

EVENT = {
    "ce-specversion": "1.0",
    "ce-type": "org.kubeflow.serving.inference.request",
    "ce-source": "/x",
    "ce-namespace": "prod",
    "ce-inferenceservicename": "flights",
    "content-type": "application/json",
}
BODY = b'{"inputs":[{"name":"age","shape":[1],"datatype":"FP64","data":[1.5]}]}'


def _token(service: Any, *options: str) -> str:
    return _tokens(service, "create", *options)


def _tokens(service: Any, *arguments: str) -> str:
    command = [*service.program, "token", *arguments, "--data", str(service.data)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_service_with_tokens_takes_keeps_and_shows_only_what_they_allow(
    start_service: Callable[..., Any],
) -> None:
    service = start_service(config={"auth": {"required": True, "metrics": "none"}})
    ingest = _token(service, "--role", "ingest", "--namespace", "prod")
    read = _token(service, "--role", "read")
    client, url = service.client, service.url

    def send(path: str, number: int, **headers: str) -> int:
        event = {**EVENT, "ce-id": f"r{number}", **headers}
        return int(client.post(url + path, content=BODY, headers=event).status_code)

    bearer = {"Authorization": f"Bearer {ingest}"}
    assert send("/", 1) == 401
    assert send("/", 2, Authorization=f"Bearer {read}") == 403
    assert send("/", 3, **bearer) == 200
    assert send(f"/events/{ingest}", 4) == 200
    assert send("/", 5, **{"ce-namespace": "test"}, **bearer) == 403
    basic = base64.b64encode(f"x:{ingest}".encode()).decode()
    assert send("/", 6, Authorization=f"Basic {basic}") == 200

    shows = {"Authorization": f"Bearer {read}"}
    assert client.get(f"{url}/v1/inferences").status_code == 401
    assert client.get(f"{url}/v1/inferences", headers=bearer).status_code == 403
    assert client.get(f"{url}/v1/alarms", headers=shows).status_code == 200
    assert client.get(f"{url}/healthz").status_code == 200

    (token_id, *_) = ingest.removeprefix("sl_").split("_")
    _tokens(service, "revoke", token_id)
    service.wait_for(lambda _: send("/", 7, **bearer) == 401, "the revoked token is refused")
    assert service.stop() == 0
    secrets = (ingest.split("_", 2)[2].encode(), basic.encode())
    for path in (*service.data.rglob("*"), service.log):
        content = path.read_bytes() if path.is_file() else b""
        assert not [secret for secret in secrets if secret in content], path
    done = service.command("verify")
    assert done.returncode == 0, done.stdout
    n_entries = re.search(r"(\d+) entries of the access log", done.stdout)
    assert n_entries is not None
    assert int(n_entries[1]) > 1
    key = service.data / "access" / "checkpoints.pub"
    assert key.read_text().strip() in done.stdout
    assert service.command("verify", "--public-key", str(key)).returncode == 0
    foreign = service.command("verify", "--public-key", "ab" * 32)
    assert foreign.returncode == 1
    assert "abab" in foreign.stdout
    (log,) = (service.data / "access").glob("log-*.jsonl")
    log.write_bytes(log.read_bytes().replace(b"/v1/alarms", b"/v1/alarmz", 1) + b"{}\n")
    assert service.command("verify").returncode == 1


def test_events_and_queries_travel_over_tls(
    start_service: Callable[..., Any], tmp_path: Path
) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    tls = {"certificate": str(certificate), "key": str(key)}
    service = start_service(
        config={"listen": {"tls": tls}, "auth": {"ingest": "none"}}, certificate=certificate
    )
    done = subprocess.run(
        [
            *("curl", "-sS", "--cacert", str(certificate), "-o", "/dev/null", "-w", "%{http_code}"),
            *(item for pair in EVENT.items() for item in ("-H", ": ".join(pair))),
            *("-H", "ce-id: r1", "--data-binary", BODY.decode(), f"{service.url}/events"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "200"
    plain = f"http://127.0.0.1:{service.port}/healthz"
    try:
        answer = httpx.get(plain, timeout=5)
    except httpx.HTTPError:
        pass
    else:
        raise AssertionError(f"expected no answer without TLS, got {answer.status_code}")
    assert service.stop() == 0
