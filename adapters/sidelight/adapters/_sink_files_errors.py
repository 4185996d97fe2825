"""Why a file could not be written, in a word."""

import errno
import re
from typing import Final

_ERRNOS: Final = {
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EFBIG: "disk_full",
    errno.EACCES: "denied",
    errno.EPERM: "denied",
    errno.EROFS: "denied",
    errno.EIO: "io",
    errno.ESTALE: "io",
    errno.ETIMEDOUT: "timeout",
}

# What Arrow and the AWS library say. The numbers are curl's:
# resolve, connect, timeout, handshake, empty answer, send, receive, certificate.
_CURL: Final = {
    6: "unreachable",
    7: "refused",
    28: "timeout",
    35: "tls",
    52: "reset",
    55: "reset",
    56: "reset",
    60: "tls",
    77: "tls",
}
_CURL_CODE: Final = re.compile(r"curlCode: (\d+)")
_NAMED: Final = (
    (re.compile(r"NO_SUCH_BUCKET|NoSuchBucket|HTTP status 404"), "no_bucket"),
    (
        re.compile(
            r"ACCESS_DENIED|INVALID_ACCESS_KEY|INVALID_CLIENT_TOKEN|SIGNATURE|MISSING_AUTH|"
            r"UNRECOGNIZED_CLIENT|EXPIRED|HTTP status 40[13]|AccessDenied|InvalidAccessKeyId"
        ),
        "denied",
    ),
    (re.compile(r"SLOW_DOWN|THROTTLING|HTTP status 429"), "throttled"),
    (re.compile(r"REQUEST_TIMEOUT|[Tt]imed? ?out"), "timeout"),
    (re.compile(r"INTERNAL_FAILURE|SERVICE_UNAVAILABLE|HTTP status 5\d\d"), "status_5xx"),
    (re.compile(r"NETWORK_CONNECTION"), "reset"),
)


def reason_of(error: OSError) -> str:
    """Return the failure as metrics name it: few words, of a bounded set."""
    if error.errno in _ERRNOS:
        return _ERRNOS[error.errno]
    text = str(error)
    if code := _CURL_CODE.search(text):
        return _CURL.get(int(code[1]), "reset")
    for pattern, reason in _NAMED:
        if pattern.search(text):
            return reason
    return "unwritable"
