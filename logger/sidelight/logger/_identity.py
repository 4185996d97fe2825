"""Which events belong together: the platforms' own correlation rules, and ids made from them."""

import hashlib
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote

from sidelight.payloads import Event, EventKind

FEEDBACK_TYPE: Final = "io.sidelight.feedback"
SYNTHETIC_PREFIX: Final = "explain-"
"""Request ids that our own explainers choose begin so; what they asked is no traffic."""

_KNOWN_PREFIXES: Final = ("org.kubeflow.serving.", "io.seldon.serving.", "io.sidelight.")
_SELDON_PREFIX: Final = "io.seldon."
_KINDS: Final[dict[str, EventKind]] = {
    "org.kubeflow.serving.inference.request": "request",
    "org.kubeflow.serving.inference.response": "response",
    "io.seldon.serving.inference.request": "request",
    "io.seldon.serving.inference.response": "response",
    "io.seldon.serving.feedback": "feedback",
    "io.sidelight.modelmesh.request": "request",
    "io.sidelight.modelmesh.response": "response",
    FEEDBACK_TYPE: "feedback",
}


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
    return _KINDS.get(event_type, "other")


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
    return Identity(
        get("namespace") or "default",
        name or "unknown",
        get("endpoint", ""),
        component,
        request_id,
    )


def identity_digest(key: Identity) -> bytes:
    """Return 16 bytes that stand for an identity, the same whenever and wherever computed.

    BLAKE2b over the five parts, each but the last behind its length, so that no two identities
    are spelled alike.
    """
    namespace, name, endpoint, component, request_id = key
    text = (
        f"{len(namespace)}:{namespace}{len(name)}:{name}"
        f"{len(endpoint)}:{endpoint}{len(component)}:{component}{request_id}"
    )
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


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
