"""What the path of a request says: which deployment it asks."""

import posixpath
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, unquote, unquote_to_bytes

from sidelight.logger._selection import path_of

_NAME: Final = r"(?P<{}>[^/:]+)"
_MODEL: Final = _NAME.format("model")
_VERSION: Final = rf"(?:/versions/{_NAME.format('version')}|/labels/[^/:]+)?"
_SELDON: Final = re.compile(
    rf"/seldon/{_NAME.format('namespace')}/{_NAME.format('name')}(?P<rest>/.*)?"
)
_PATHS: Final = (
    # KServe and TF-Serving V1, then the Open Inference Protocol.
    re.compile(rf"/v1/models/{_MODEL}{_VERSION}(?::.*)?"),
    re.compile(rf"/v2/models/{_MODEL}{_VERSION}(?:/.*)?"),
)
# Methods of gRPC tell the protocol. The model stands in the message: who captures gRPC puts it
# behind the path, as ``?model=NAME&version=VERSION``.
_GRPC: Final = re.compile(r"/(?P<package>inference|seldon\.protos|tensorflow\.serving)\.\w+/\w+")
_PROTOCOLS: Final = {
    "inference": "v2",
    "seldon.protos": "seldon",
    "tensorflow.serving": "tensorflow",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where a request goes, as its path tells.

    Parameters
    ----------
    path : str
        The path as sent, without the query (which may hold secrets).
    namespace, name : str
        The deployment.
    model, version : str
        The model named in the path and its version; empty when the path names none.
    protocol : str
        In which messages of gRPC are written: ``v2``, ``seldon`` or ``tensorflow``; else empty.

    """

    path: str
    namespace: str
    name: str
    model: str = ""
    version: str = ""
    protocol: str = ""


def route_of(target: bytes, *, deployment: str | None, namespace: str) -> Route:
    """Read the target of a request line.

    Parameters
    ----------
    target : bytes
        Origin or absolute form.
    deployment : str or None
        ``namespace/name`` for everything, or None to follow the path.
    namespace : str
        For paths that name none.

    Examples
    --------
    >>> route = route_of(b"/v2/models/flights/versions/3/infer", deployment=None, namespace="prod")
    >>> route.namespace, route.name, route.version
    ('prod', 'flights', '3')

    """
    path = path_of(target).decode("latin-1")
    inner, name = path, ""
    if seldon := _SELDON.fullmatch(path):
        namespace, name = unquote(seldon["namespace"]), unquote(seldon["name"])
        inner = seldon["rest"] or ""
    model = version = protocol = ""
    if grpc := _GRPC.fullmatch(path):
        protocol = _PROTOCOLS[grpc["package"]]
        named = parse_qs(target.partition(b"?")[2].decode("latin-1"))
        model, version = named.get("model", [""])[0], named.get("version", [""])[0]
    for pattern in _PATHS:
        if match := pattern.fullmatch(inner):
            model, version = unquote(match["model"]), unquote(match["version"] or "")
            break
    if deployment is not None:
        namespace, _, name = deployment.partition("/")
    return Route(
        path=path,
        namespace=namespace,
        name=name or model or "model",
        model=model or name,
        version=version,
        protocol=protocol,
    )


def plain(target: bytes) -> bytes:
    """Return a target as a lenient server may read it.

    Without escapes, doubled slashes, dots and parameters in its path.

    Examples
    --------
    >>> plain(b"/v1/./x//../models/m%3Apredict;v=1?full=1")
    b'/v1/models/m:predict?full=1'

    """
    _, mark, query = target.partition(b"?")
    path = re.sub(rb";[^/]*", b"", unquote_to_bytes(path_of(target)))
    return b"/" + posixpath.normpath(path).lstrip(b"/") + mark + query
