"""A bucket with the S3 interface."""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

from sidelight.adapters.errors import SinkError

# The emitter tries again; and what is tried when a process ends holds up its end.
_ATTEMPTS: Final = 1
# Seen with pyarrow 26: a store that has gone silent is given up six seconds later than that.
_SILENCE_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """How a bucket is reached; what is empty comes from the usual places of AWS clients.

    Parameters
    ----------
    endpoint : str, default ""
        ``http(s)://HOST[:PORT]`` of a store that is not Amazon's.
    region : str, default ""
        Empty asks the environment, else ``us-east-1`` where an endpoint is given.
    access_key, secret_key, session_token : str, default ""
        Without them: environment, profile, web identity of a pod, instance.
    role_arn : str, default ""
        A role to assume.
    ca_file : str, default ""
        Authorities of the endpoint's certificate.
    connect_timeout_s : float, default 3.0
        Seconds.

    """

    endpoint: str = ""
    region: str = ""
    access_key: str = field(default="", repr=False)
    secret_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    role_arn: str = ""
    ca_file: str = ""
    connect_timeout_s: float = 3.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.endpoint)
        if self.endpoint and (parts.scheme not in {"http", "https"} or not parts.hostname):
            raise SinkError(
                f"s3 endpoint: expected http(s)://HOST[:PORT], got {parts.scheme or 'no scheme'}"
            )
        if bool(self.access_key) != bool(self.secret_key):
            raise SinkError("s3 keys: expected access_key and secret_key, got one of them")
        if not self.connect_timeout_s > 0:
            raise SinkError(
                f"s3 connect_timeout_s: expected a positive number, got {self.connect_timeout_s}"
            )


class S3Files:
    """Objects below one prefix, each put at once: it is whole or not there.

    An upload in parts that a kill has cut off stays invisible and is paid for: give the bucket a
    rule that aborts incomplete uploads.

    Parameters
    ----------
    where : str
        ``BUCKET`` or ``BUCKET/PREFIX``.
    settings : S3Settings

    """

    def __init__(self, where: str, settings: S3Settings) -> None:
        self._where = where.strip("/")
        if not self._where or any(part in {"", ".", ".."} for part in self._where.split("/")):
            raise SinkError(f"s3 address: expected s3://BUCKET[/PREFIX], got s3://{where}")
        self._settings = settings
        self._files: S3FileSystem | None = None

    def write(self, path: str, fill: Callable[[BinaryIO], None]) -> None:
        """Put an object, in place of one that has the name already.

        Raises
        ------
        OSError
            When the store refuses or cannot be reached; then nothing has changed.

        """
        content = io.BytesIO()
        fill(content)
        if self._files is None:
            self._files = connect_s3(self._settings)
        # Closing makes the object visible: nothing may fail between here and there.
        stream = self._files.open_output_stream(f"{self._where}/{path}")
        stream.write(content.getbuffer())
        stream.close()

    def close(self) -> None:
        """Let go of connections."""
        self._files = None


def connect_s3(settings: S3Settings) -> S3FileSystem:
    """Return a client that tries once and gives up a silent store; nothing is asked yet."""
    options: dict[str, Any] = {
        "connect_timeout": settings.connect_timeout_s,
        "request_timeout": _SILENCE_S,
        "retry_strategy": AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    }
    given = {
        "access_key": settings.access_key,
        "secret_key": settings.secret_key,
        "session_token": settings.session_token,
        "role_arn": settings.role_arn,
        "tls_ca_file_path": settings.ca_file,
        "region": settings.region,
    }
    options |= {name: value for name, value in given.items() if value}
    if settings.endpoint:
        parts = urlsplit(settings.endpoint)
        options |= {"scheme": parts.scheme, "endpoint_override": parts.netloc}
        # Otherwise the library looks for a cloud around it, which takes seconds.
        options.setdefault("region", os.environ.get("AWS_REGION", "us-east-1"))
    try:
        # A small object is one put, and not an upload in parts that is begun and completed.
        return S3FileSystem(**options, allow_delayed_open=True)
    except TypeError:  # an older pyarrow
        return S3FileSystem(**options)
