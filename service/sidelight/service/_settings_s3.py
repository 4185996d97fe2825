"""How a bucket is reached."""

import re
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from sidelight.service._proxy_address import HttpUrl
from sidelight.service._settings_section import Section

# A path that was made of an address has lost one of its slashes.
_ADDRESS: Final = re.compile(r"s3:/{1,2}(?=[^/])")
_WHERE: Final = re.compile(r"s3://[^/\s]+(/[^/\s]+)*/?")


def _bucket(value: str) -> str:
    if not _WHERE.fullmatch(value) or any(part in {".", ".."} for part in value.split("/")):
        raise ValueError("expected s3://BUCKET[/PREFIX]")
    return value.rstrip("/")


def _lake_place(value: Any) -> Any:
    """Say all that is possible at once; a union would have an error for each of its members."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    try:
        return _bucket(value)
    except (TypeError, ValueError):
        raise ValueError("expected true, false or s3://BUCKET[/PREFIX]") from None


LakePlace = Annotated[bool | str, BeforeValidator(_lake_place)]
"""Whether there is a lake, or the address of a bucket and a prefix in it."""


def with_bucket(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings whose ``data`` is a folder, where it was the address of a bucket."""
    data = str(values.get("data", ""))
    if not _ADDRESS.match(data):
        return values
    store = values.get("store") or {}
    if isinstance(store, dict):
        url = _ADDRESS.sub("s3://", data)
        store = {"lake": url, "archive": True, **store}
    local = values.get("local_data") or Path("./sidelight-data")
    return {**values, "data": local, "store": store}


class S3Settings(Section):
    """How a bucket is reached; what is absent comes from the usual places of AWS clients."""

    endpoint: HttpUrl | None = None
    """``http(s)://HOST[:PORT]`` of a store that is not Amazon's."""

    region: str = ""
    """Region of the bucket."""

    role_arn: str = ""
    """A role to assume."""

    ca: Path | None = None
    """File of the authorities of the endpoint's certificate, PEM."""

    access_key_from: str | None = Field(default=None, repr=False)
    """File with the access key, or ``env:NAME``."""

    secret_key_from: str | None = Field(default=None, repr=False)
    """File with the secret key, or ``env:NAME``."""

    session_token_from: str | None = Field(default=None, repr=False)
    """File with the session token, or ``env:NAME``."""
