"""Documents of Seldon's request logger, as events: the hits of a search, one JSON object a line."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from sidelight.adapters.errors import ImportFileError
from sidelight.logger import CapturedEvent

_SIDES: Final = ("request", "response")
_V1: Final = {"request": "instances", "response": "predictions"}
_ITEM: Final = "-item-"
_ATTRIBUTES: Final = {
    "Ce-Inferenceservicename": "inferenceservicename",
    "Ce-Endpoint": "endpoint",
    "Ce-Namespace": "namespace",
    "Ce-Modelid": "modelid",
}


def seldon_log(data: bytes) -> list[CapturedEvent]:
    """Return the events that rows of requests were made of.

    The rows of one request are joined in the order of their ids; the payload is taken where the
    logger kept it, and else made of names and values.

    Parameters
    ----------
    data : bytes
        Lines of ``{"_id": ..., "_source": {...}}``, as a search or a dump gives them.

    Raises
    ------
    ImportFileError
        When a line is no document of the logger.

    """
    found: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        if line.strip():
            name, source = _hit(line, number)
            row = name.rpartition(_ITEM)[2] if _ITEM in name else "0"
            place = int(row) if row.isascii() and row.isdigit() else 0
            found.setdefault(str(source["RequestId"]), []).append((place, source))
    events: list[CapturedEvent] = []
    for rows in found.values():
        rows.sort(key=lambda item: item[0])
        events += _events([source for _, source in rows])
    return events


def _hit(line: bytes, number: int) -> tuple[str, Mapping[str, Any]]:
    try:
        hit = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise _bad(number, "a JSON object", "malformed bytes") from None
    source = hit.get("_source") if isinstance(hit, dict) else None
    if not isinstance(source, dict) or not isinstance(source.get("RequestId"), str):
        raise _bad(number, "_source with RequestId", "something else")
    return str(hit.get("_id") or source["RequestId"]), source


def _events(rows: list[Mapping[str, Any]]) -> Iterator[CapturedEvent]:
    first = rows[0]
    is_seldon = first.get("ServingEngine", "seldon") == "seldon"
    prefix = "io.seldon.serving.inference." if is_seldon else "org.kubeflow.serving.inference."
    for side in _SIDES:
        parts = [row[side] for row in rows if isinstance(row.get(side), dict)]
        if not parts:
            continue
        attributes = {
            "specversion": "1.0",
            "type": prefix + side,
            "source": str(parts[0].get("ce-source") or "seldon-request-logger"),
            "id": str(first["RequestId"]),
            "requestid": str(first["RequestId"]),
            "time": str(parts[0].get("ce-time") or first.get("@timestamp") or ""),
            "datacontenttype": "application/json",
            **{own: str(first.get(name) or "") for name, own in _ATTRIBUTES.items()},
        }
        attributes = {name: value for name, value in attributes.items() if value}
        payload = parts[0].get("payload")
        if payload is None:
            payload = _seldon(parts) if is_seldon else {_V1[side]: _instances(parts)}
        yield CapturedEvent(orjson.dumps(attributes)[:-1], orjson.dumps(payload))


def _instances(parts: list[Mapping[str, Any]]) -> list[Any]:
    return [part.get("instance") for part in parts]


def _seldon(parts: list[Mapping[str, Any]]) -> Any:
    names = parts[0].get("names")
    data: dict[str, Any] = {"ndarray": _instances(parts)}
    if isinstance(names, list):
        data = {"names": names, **data}
    return {"data": data}


def _bad(number: int, expected: str, got: str) -> ImportFileError:
    return ImportFileError(f"line {number}", expected=expected, got=got)
