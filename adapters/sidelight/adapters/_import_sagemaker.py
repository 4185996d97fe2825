"""Files of SageMaker's data capture, as events: one JSON object a line, both halves in one.

Reference: AWS, "Data capture" of SageMaker Model Monitor.
"""

import base64
import binascii
from collections.abc import Callable
from typing import Any, Final

import orjson

from sidelight.adapters.errors import ImportFileError
from sidelight.logger import CapturedEvent
from sidelight.logger._identity import SAGEMAKER_PREFIX

_SIDES: Final = (("endpointInput", "request"), ("endpointOutput", "response"))
_CONTENT_TYPES: Final = {"CSV": "text/csv", "JSON": "application/json"}


def sagemaker_capture(
    data: bytes, *, key: str = "", bad: Callable[[ImportFileError], None] | None = None
) -> list[CapturedEvent]:
    """Return the events of one file.

    Parameters
    ----------
    data : bytes
        The whole file.
    key : str
        Of the object, ``<endpoint>/<variant>/yyyy/mm/dd/hh/<name>.jsonl`` behind any prefix: names
        the deployment and its version.
    bad : callable, optional
        Called for each line that cannot be read, which is left out. Without it the first one is
        raised.

    Raises
    ------
    ImportFileError
        When a line is no captured record.

    """
    endpoint, variant = _names(key)
    events: list[CapturedEvent] = []
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            events += _events(line, number, endpoint, variant)
        except ImportFileError as error:
            if bad is None:
                raise
            bad(error)
    return events


def _names(key: str) -> tuple[str, str]:
    # Behind the two names stand year, month, day, hour and the file.
    parts = key.strip("/").split("/")
    behind = 5
    if len(parts) < behind + 2:
        return "", ""
    return parts[-behind - 2], parts[-behind - 1]


def _events(line: bytes, number: int, endpoint: str, variant: str) -> list[CapturedEvent]:
    record = _object(line, number)
    captured, about = record.get("captureData"), record.get("eventMetadata")
    if not isinstance(captured, dict) or not isinstance(about, dict) or not about.get("eventId"):
        raise _bad(number, "captureData and eventMetadata with eventId", "something else")
    attributes = {
        "specversion": "1.0",
        "source": "sagemaker",
        "id": str(about["eventId"]),
        "inferenceservicename": endpoint,
        "modelversion": variant,
        "time": str(about.get("inferenceTime") or ""),
        "inferenceid": str(about.get("inferenceId") or ""),
    }
    attributes = {name: value for name, value in attributes.items() if value}
    events = []
    for side, kind in _SIDES:
        part = captured.get(side)
        if not isinstance(part, dict):
            continue
        encoding = str(part.get("encoding") or "")
        content_type = part.get("observedContentType") or _CONTENT_TYPES.get(encoding, "")
        own = {**attributes, "type": SAGEMAKER_PREFIX + kind, "datacontenttype": str(content_type)}
        data = _payload(part.get("data"), encoding, number)
        events.append(CapturedEvent(orjson.dumps(own)[:-1], data))
    return events


def _object(line: bytes, number: int) -> dict[str, Any]:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise _bad(number, "a JSON object", "malformed bytes") from None
    if not isinstance(record, dict):
        raise _bad(number, "a JSON object", type(record).__name__)
    return record


def _payload(data: Any, encoding: str, number: int) -> bytes:
    if data is None:
        return b""
    if not isinstance(data, str):
        return orjson.dumps(data)
    if encoding != "BASE64":
        return data.encode()
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise _bad(number, "base64", "other characters") from None


def _bad(number: int, expected: str, got: str) -> ImportFileError:
    return ImportFileError(f"line {number}", expected=expected, got=got)
