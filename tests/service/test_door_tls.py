"""A renewed certificate is served without a restart, a broken one is not."""

import asyncio
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from sidelight.service import _door_tls
from sidelight.service._door_tls import DoorTls
from sidelight.service._settings_access import ListenTlsSettings
from sidelight.service.errors import ConfigurationError


def _write(folder: Path, name: str, *, with_key: bool = True) -> ListenTlsSettings:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    settings = ListenTlsSettings(certificate=folder / "tls.crt", key=folder / "tls.key")
    _replace(settings.certificate, certificate.public_bytes(Encoding.PEM))
    if with_key:
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _replace(settings.key, pem)
    return settings


def _replace(path: Path, content: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


def _served(context: ssl.SSLContext) -> str:
    """Return the name in the certificate that a new connection gets."""
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, server):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    certificate = client.getpeercert(binary_form=True)
    assert certificate is not None
    name = x509.load_der_x509_certificate(certificate).subject
    return str(name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def test_new_connections_get_the_renewed_certificate(tmp_path: Path) -> None:
    tls = DoorTls(_write(tmp_path, "former"))
    before = _served(tls.context)
    _write(tmp_path, "renewed")

    assert tls.refresh()
    assert (before, _served(tls.context)) == ("former", "renewed")
    assert not tls.refresh()


def test_certificate_without_its_key_waits_for_it(tmp_path: Path) -> None:
    tls = DoorTls(_write(tmp_path, "former"))
    _write(tmp_path, "half", with_key=False)

    assert not tls.refresh()
    assert _served(tls.context) == "former"
    _write(tmp_path, "whole")
    assert tls.refresh()
    assert _served(tls.context) == "whole"


def test_files_that_are_gone_change_nothing(tmp_path: Path) -> None:
    settings = _write(tmp_path, "former")
    tls = DoorTls(settings)
    settings.certificate.unlink()

    assert not tls.refresh()
    assert _served(tls.context) == "former"


def test_authorities_of_clients_are_asked_for(tmp_path: Path) -> None:
    settings = _write(tmp_path, "former")
    tls = DoorTls(settings.model_copy(update={"clients": settings.certificate}))

    assert tls.context.verify_mode is ssl.CERT_REQUIRED


def test_files_that_cannot_be_used_at_the_start_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"listen\.tls"):
        DoorTls(ListenTlsSettings(certificate=tmp_path / "none", key=tmp_path / "none"))


def test_changes_are_looked_for_until_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = DoorTls(_write(tmp_path, "former"))
    monkeypatch.setattr(_door_tls, "_LOOK_S", 0)
    looks: list[bool] = []
    enough = asyncio.Event()

    def look() -> bool:
        looks.append(True)
        if len(looks) > 2:
            enough.set()
        return False

    monkeypatch.setattr(tls, "refresh", look)

    async def followed() -> None:
        task = asyncio.create_task(tls.follow())
        await enough.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(followed())
    assert len(looks) > 2
