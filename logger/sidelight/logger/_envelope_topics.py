"""Records of Kafka that are no CloudEvents: what their topic and headers say they are.

The same rules serve records that were consumed and records that Knative's KafkaSource wrapped,
which spells a header's name in lower case without anything but letters and digits.
"""

import re
from collections.abc import Mapping
from typing import Final

from sidelight.logger._identity import (
    CORE2_PREFIX,
    MLSERVER_PREFIX,
    is_known_type,
)

# Seldon Core 2: <prefix>.<namespace>.model|pipeline.<name>.inputs|outputs; a prefix may have dots.
_CORE2: Final = re.compile(r"(?:.*\.)?([^.]+)\.(model|pipeline)\.(.+)\.(inputs|outputs)")
_CORE2_ERRORS: Final = re.compile(r"(?:.*\.)?([^.]+)\.errors\.errors")
# Kafka's own bound; what Knative names may be longer, and patterns would search it for long.
_MAX_TOPIC_CHARS: Final = 249
_KINDS: Final = {"inputs": "request", "outputs": "response"}
_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9]")
_MLSERVER_MODEL: Final = "mlservermodel"
_MLSERVER_ANSWER: Final = "io.seldon.serving.inference.response"

# What Core 2's headers are as attributes.
_HEADERS: Final = (
    ("xrequestid", "xrequestid"),
    ("traceparent", "traceparent"),
    ("xseldonalibitype", "detectortype"),
)


def header_name(name: str) -> str:
    """Return a header's name as an attribute can have it.

    Examples
    --------
    >>> header_name("X-Request-Id")
    'xrequestid'

    """
    return _NOT_IN_NAMES.sub("", name.lower())


def record_attributes(topic: str, key: str, headers: Mapping[str, str]) -> dict[str, str] | None:
    """Return the attributes of a plain record; None when no platform is known by it.

    Parameters
    ----------
    topic : str
        Where it stood.
    key : str
        Of the record; "" when it has none.
    headers : mapping of str to str
        By ``header_name``.

    Examples
    --------
    >>> found = record_attributes("seldon.prod.model.iris.inputs", "3.p.7", {"pipeline": "p"})
    >>> found["type"], found["namespace"], found["inferenceservicename"], found["id"]
    ('io.sidelight.seldoncore2.request', 'prod', 'iris', '3.p.7')

    """
    if is_known_type(headers.get("type", "")):
        # Seldon Core 1 writes the attributes as headers of their own names.
        return dict(headers)
    if len(topic) > _MAX_TOPIC_CHARS:
        return None
    if found := _CORE2.fullmatch(topic):
        namespace, resource, name, end = found.groups()
        return _core2(namespace, name, resource, _KINDS[end], key, headers)
    if found := _CORE2_ERRORS.fullmatch(topic):
        model = headers.get("seldonpipelineerrors") or headers.get("pipeline", "")
        return _core2(found[1], model, "model", "error", key, headers)
    return _mlserver(key, headers)


def _core2(
    namespace: str, name: str, resource: str, kind: str, key: str, headers: Mapping[str, str]
) -> dict[str, str]:
    pipeline = headers.get("pipeline", "")
    attributes = {
        "type": CORE2_PREFIX + kind,
        "namespace": namespace,
        "inferenceservicename": name,
        "component": resource,
        # Topics of a model are shared by the pipelines that it is in.
        "endpoint": pipeline,
        "protocol": "v2",
    }
    # The gateway gives each record a key; what took it away on the way left the header.
    if request_id := key or headers.get("xrequestid", ""):
        attributes["id"] = request_id
    if resource == "pipeline" and (version := headers.get("xpipelineversion")):
        attributes["modelversion"] = version
    attributes |= {to: headers[name] for name, to in _HEADERS if headers.get(name)}
    return attributes


def _mlserver(key: str, headers: Mapping[str, str]) -> dict[str, str] | None:
    """Return the attributes of a record of MLServer, whose answers carry headers ``Ce-*``.

    The namespace is in the answers alone, so that it cannot be part of what pairs them.
    """
    is_answer = headers.get("cetype", "") == _MLSERVER_ANSWER
    # An answer may repeat the headers of its request.
    kind, model = "request", headers.get(_MLSERVER_MODEL, "")
    if is_answer or not model:
        kind, model = "response", headers.get("cemodelid", "") or model
        if not model or not headers.get("cetype", "").startswith("io.seldon.serving."):
            return None
    request_id = key or headers.get("ceid", "")
    attributes = {
        "type": MLSERVER_PREFIX + kind,
        "inferenceservicename": model,
        "modelname": model,
        "protocol": "v2",
    }
    if request_id:
        attributes["id"] = request_id
    if version := headers.get("mlserverversion"):
        attributes["modelversion"] = version
    return attributes
