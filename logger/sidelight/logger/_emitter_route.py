"""What the path of a request says: which deployment it asks, and whether it is an inference."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

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

_SILENT_METHODS: Final = frozenset((b"GET", b"HEAD", b"OPTIONS"))
_PROBES: Final = (
    b"/metrics",
    b"/health",
    b"/healthz",
    b"/live",
    b"/livez",
    b"/ready",
    b"/readyz",
    b"/ping",
    b"/health/live",
    b"/health/ready",
    b"/health/status",
)
_MARKS: Final = re.compile(
    rb"\r\n(?:sidelight-skip|seldon-skip-logging):[ \t]*(?:true|on|1)[ \t]*\r\n", re.IGNORECASE
)


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

    """

    path: str
    namespace: str
    name: str
    model: str = ""
    version: str = ""


def is_inference(method: bytes, target: bytes, head: bytes) -> bool:
    """Whether a request is captured: no read, no probe, not marked by ``Sidelight-Skip``.

    Seldon's own mark ``Seldon-Skip-Logging`` counts as well; explainers send both.
    """
    if method in _SILENT_METHODS or target.partition(b"?")[0].endswith(_PROBES):
        return False
    return _MARKS.search(head) is None


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
    path = target.partition(b"?")[0].decode("latin-1")
    if not path.startswith("/"):
        path = "/" + path.partition("://")[2].partition("/")[2]
    inner, name = path, ""
    if seldon := _SELDON.fullmatch(path):
        namespace, name = unquote(seldon["namespace"]), unquote(seldon["name"])
        inner = seldon["rest"] or ""
    model = version = ""
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
    )
