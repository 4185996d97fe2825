"""Where the files of a lake are kept beside the data folder: a bucket, and how it is reached."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from sidelight.adapters._sink_files_s3 import S3Settings
from sidelight.adapters.errors import LakeError

_FILE: Final = "place.json"
_ENVIRONMENT: Final = "env:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A bucket, as it is written down in the data folder for whoever opens that.

    It holds no secrets: it says where they are.

    Parameters
    ----------
    url : str
        ``s3://BUCKET[/PREFIX]``.
    access_key_from, secret_key_from, session_token_from : str, default ""
        A file, or ``env:NAME``; the usual places of AWS clients when empty.

    """

    url: str
    endpoint: str = ""
    region: str = ""
    role_arn: str = ""
    ca_file: str = ""
    access_key_from: str = field(default="", repr=False)
    secret_key_from: str = field(default="", repr=False)
    session_token_from: str = field(default="", repr=False)

    @property
    def prefix(self) -> str:
        """Bucket and prefix."""
        return self.url.removeprefix("s3://").strip("/")

    def settings(self) -> S3Settings:
        """Read the secrets.

        Raises
        ------
        LakeError
            When one is not where it should be.

        """
        return S3Settings(
            # The variable is the one that newer AWS clients know, too.
            endpoint=self.endpoint or os.environ.get("AWS_ENDPOINT_URL", ""),
            region=self.region,
            role_arn=self.role_arn,
            ca_file=self.ca_file,
            access_key=_secret("access_key_from", self.access_key_from),
            secret_key=_secret("secret_key_from", self.secret_key_from),
            session_token=_secret("session_token_from", self.session_token_from),
        )

    def save(self, lake: Path) -> None:
        """Write it down in the folder of the lake."""
        lake.mkdir(parents=True, exist_ok=True)
        temporary = lake / f"{_FILE}.tmp"
        temporary.write_text(json.dumps(asdict(self), indent=1))
        temporary.replace(lake / _FILE)


def place_of(lake: Path) -> Place | None:
    """Return what is written down in the folder of a lake; None when its files are all there.

    Raises
    ------
    LakeError
        When it cannot be read.

    """
    try:
        return Place(**json.loads((lake / _FILE).read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, OSError) as error:
        raise LakeError(f"{lake / _FILE}: expected where the lake is, got {error}") from error


def _secret(key: str, place: str) -> str:
    if not place:
        return ""
    if place.startswith(_ENVIRONMENT):
        secret = os.environ.get(place.removeprefix(_ENVIRONMENT), "")
    else:
        try:
            secret = Path(place).read_text().strip()
        except (OSError, UnicodeDecodeError):
            secret = ""
    if not secret:
        raise LakeError(f"store.s3.{key}: expected a file or env:NAME with a secret, got none")
    return secret
