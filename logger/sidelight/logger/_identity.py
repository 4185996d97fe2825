"""Which events belong together: the platforms' own correlation rules, and ids made from them."""

import hashlib
import re
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote

from sidelight.payloads import Event, EventKind

FEEDBACK_TYPE: Final = "io.sidelight.feedback"
SYNTHETIC_PREFIX: Final = "explain-"
"""Request ids that our own explainers choose begin so; what they asked is no traffic."""

CORE2_PREFIX: Final = "io.sidelight.seldoncore2."
MLSERVER_PREFIX: Final = "io.sidelight.mlserver."
SAGEMAKER_PREFIX: Final = "io.sidelight.sagemaker."
"""Types that we give to records of platforms that send no CloudEvents."""

_KNOWN_PREFIXES: Final = (
    "org.kubeflow.serving.",
    "io.seldon.serving.",
    "io.sidelight.",
    "io.kserve.inference.",
)
_SELDON_PREFIX: Final = "io.seldon."
_KINDS: Final[dict[str, EventKind]] = {
    "org.kubeflow.serving.inference.request": "request",
    "org.kubeflow.serving.inference.response": "response",
    "io.seldon.serving.inference.request": "request",
    "io.seldon.serving.inference.response": "response",
    "io.seldon.serving.feedback": "feedback",
    "io.sidelight.modelmesh.request": "request",
    "io.sidelight.modelmesh.response": "response",
    CORE2_PREFIX + "request": "request",
    CORE2_PREFIX + "response": "response",
    CORE2_PREFIX + "error": "response",
    MLSERVER_PREFIX + "request": "request",
    MLSERVER_PREFIX + "response": "response",
    SAGEMAKER_PREFIX + "request": "request",
    SAGEMAKER_PREFIX + "response": "response",
    "io.kserve.inference.response": "response",
    FEEDBACK_TYPE: "feedback",
}
# A SeldonDeployment that a Knative trigger calls answers so: seldon.<name>.<namespace>.response
_SELDON_REPLY: Final = re.compile(r"seldon\.(.+)\.([^.]+)\.response")
_KSERVE_REPLY: Final = "io.kserve.inference."


class Identity(NamedTuple):
    """What the two halves of one inference share.

    Names are those of the platform, as sent: KServe's ``namespace, inferenceservicename,
    endpoint, component`` and ``id``; Seldon's ``modelid`` for the component and ``requestid``,
    else ``id``, for the request.
    """

    namespace: str
    name: str
    endpoint: str
    component: str
    request_id: str

    @property
    def deployment(self) -> str:
        """``namespace/name``, see ``deployment_name``."""
        return deployment_name(self.namespace, self.name)

    @property
    def prefix(self) -> bytes:
        """What ``identity_digest`` covers before the request id."""
        namespace, name, endpoint, component, _ = self
        text = (
            f"{len(namespace)}:{namespace}{len(name)}:{name}"
            f"{len(endpoint)}:{endpoint}{len(component)}:{component}"
        )
        return text.encode("utf-8", "surrogatepass")

    @property
    def is_synthetic(self) -> bool:
        """Whether one of our own explainers asked."""
        return self.request_id.startswith(SYNTHETIC_PREFIX)


def kind_of(event_type: str) -> EventKind:
    """Return what an event of this CloudEvents type is.

    Examples
    --------
    >>> kind_of("org.kubeflow.serving.inference.request")
    'request'
    >>> kind_of("com.example.build.finished")
    'other'

    """
    kind = _KINDS.get(event_type)
    if kind is None:
        kind = "response" if _SELDON_REPLY.fullmatch(event_type) else "other"
    return kind


def is_known_type(event_type: str) -> bool:
    """Whether the type is one of a serving platform that we know, or our own."""
    return event_type.startswith(_KNOWN_PREFIXES)


def identity(event: Event) -> Identity:
    """Return the key that pairs an event with its other half.

    A missing namespace is ``default``; a missing name is the ``modelname``, else ``unknown``.

    Examples
    --------
    >>> event = Event(
    ...     id="7", source="/s", type="io.seldon.serving.inference.request",
    ...     extensions={"namespace": "seldon", "inferenceservicename": "income",
    ...                 "endpoint": "default", "modelid": "classifier", "requestid": "r9"},
    ... )
    >>> tuple(identity(event))
    ('seldon', 'income', 'default', 'classifier', 'r9')

    """
    get = event.extensions.get
    name = get("inferenceservicename") or get("modelname")
    if event.type.startswith(_SELDON_PREFIX):
        # Seldon's oldest executors wrote the attribute with a hyphen.
        component = get("modelid") or get("model-id") or ""
        request_id = get("requestid") or event.id
        name = name or component
    else:
        component = get("component", "")
        request_id = event.id
    namespace = get("namespace")
    if not name:
        namespace, name = _named_by_reply(event, namespace)
    return Identity(
        namespace or "default",
        name or "unknown",
        get("endpoint", ""),
        component,
        request_id,
    )


def _named_by_reply(event: Event, namespace: str | None) -> tuple[str | None, str]:
    """Return namespace and name of an answer that says them in its type or source alone."""
    if found := _SELDON_REPLY.fullmatch(event.type):
        return found[2], found[1]
    if event.type.startswith(_KSERVE_REPLY) and event.source.startswith(_KSERVE_REPLY):
        return namespace, event.source.removeprefix(_KSERVE_REPLY)
    return namespace, ""


def identity_digest(key: Identity) -> bytes:
    """Return 16 bytes that stand for an identity, the same whenever and wherever computed.

    BLAKE2b over the five parts, each but the last behind its length, so that no two identities
    are spelled alike.
    """
    text = key.prefix + key.request_id.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()


def inference_id(key: Identity) -> str:
    """Return the id of an inference: 32 hexadecimal digits.

    Examples
    --------
    >>> len(inference_id(Identity("prod", "flights", "", "predictor", "17")))
    32

    """
    return identity_digest(key).hex()


@lru_cache(maxsize=4096)
def deployment_name(namespace: str, name: str) -> str:
    """Return ``namespace/name`` with everything percent-encoded that a URL cannot carry.

    The result holds exactly one slash, so it can be split again, and no control character;
    ``unquote`` of a part gives back the name as sent.

    Examples
    --------
    >>> deployment_name("prod", "flights")
    'prod/flights'
    >>> deployment_name("prod", "a/b c")
    'prod/a%2Fb%20c'

    """
    return f"{_segment(namespace)}/{_segment(name)}"


def _segment(name: str) -> str:
    # A segment of dots alone would climb up a path.
    if not name.strip("."):
        return name.replace(".", "%2E")
    return quote(name, safe="", errors="replace")
