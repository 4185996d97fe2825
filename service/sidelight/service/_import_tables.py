"""Rows of a table as events: each row is one inference, with its labels behind it."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from sidelight.logger import CapturedEvent
from sidelight.service._import_values import (
    FLOAT,
    common_datatype,
    datatype_of,
    plain_value,
    time_of,
    word_of,
)
from sidelight.service.errors import ConfigurationError

_TYPES: Final = "org.kubeflow.serving.inference."
_FEEDBACK: Final = "io.sidelight.feedback"
_SOURCE: Final = "sidelight-import"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """What the columns of a table are.

    Parameters
    ----------
    deployment : str
        ``namespace/name`` of every row.
    features : tuple of str
        Columns that were asked with; empty for all that are nothing else.
    outputs : tuple of str
        Columns that were answered.
    labels : tuple of str
        Columns that became known later.
    request_id, time, version : str or None
        Columns with the id, the time (RFC 3339, or a number since 1970) and the model version.

    Raises
    ------
    ConfigurationError
        When a column is named twice, or the deployment is no ``namespace/name``.

    """

    deployment: str
    features: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    request_id: str | None = None
    time: str | None = None
    version: str | None = None

    def __post_init__(self) -> None:
        namespace, slash, name = self.deployment.partition("/")
        if not (namespace and slash and name):
            raise ConfigurationError(f"--deployment: expected NS/NAME, got {self.deployment!r}")
        named = [*self.features, *self._others()]
        if twice := sorted({column for column in named if named.count(column) > 1}):
            raise ConfigurationError(f"column {twice[0]}: expected one use of it, got two")

    def _others(self) -> list[str]:
        single = (self.request_id, self.time, self.version)
        return [*self.outputs, *self.labels, *(column for column in single if column)]

    def features_of(self, columns: list[str]) -> tuple[str, ...]:
        """Return the features among the columns of a table; raise for a column that it has not."""
        missing = [name for name in (*self.features, *self._others()) if name not in columns]
        if missing:
            raise ConfigurationError(
                f"column {missing[0]}: expected one of {', '.join(columns[:20])}, got none of it"
            )
        others = set(self._others())
        found = self.features or tuple(name for name in columns if name not in others)
        if not found:
            raise ConfigurationError("the table has no column left for a feature")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What the columns of a table hold, over all its rows.

    Parameters
    ----------
    features, outputs : mapping of column to datatype
        The datatype of the protocol V2; empty where values have several.

    """

    features: Mapping[str, str]
    outputs: Mapping[str, str]

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]], mapped: Mapped) -> "Table":
        """Read a table to its end.

        Raises
        ------
        BadRequest
            When a value cannot be what its column is.
        ConfigurationError
            When no row has a column that is named.

        """
        found: dict[str, set[str]] = {}
        for number, row in enumerate(rows):
            for column, value in row.items():
                kinds = found.setdefault(column, set())
                if value is not None and (plain := plain_value(value)) is not None:
                    kinds.add(datatype_of(plain))
            if mapped.time:
                time_of(row.get(mapped.time), number)
        features = mapped.features_of(list(found)) if found else ()
        return cls(
            features={name: common_datatype(found[name]) for name in features},
            outputs={name: common_datatype(found[name]) for name in mapped.outputs if found},
        )


def row_events(
    rows: Iterable[Mapping[str, Any]], mapped: Mapped, table: Table, *, digest: bytes
) -> Iterator[CapturedEvent]:
    """Return request, response and labels of each row.

    Parameters
    ----------
    rows : iterable of mappings
        Values by column; what a row has not is null.
    mapped : Mapped
        What the columns are.
    table : Table
        What they hold.
    digest : bytes
        Of the file: ids derive from it where no column has them, so that a second import changes
        nothing.

    """
    prefix = hashlib.blake2b(digest, digest_size=8).hexdigest()
    namespace, _, name = mapped.deployment.partition("/")
    for number, row in enumerate(rows):
        given = word_of(row.get(mapped.request_id)) if mapped.request_id else None
        request_id = given or f"{prefix}-{number}"
        shared: dict[str, str] = {
            "specversion": "1.0",
            "source": _SOURCE,
            "id": request_id,
            "namespace": namespace,
            "inferenceservicename": name,
            "datacontenttype": "application/json",
        }
        if mapped.time and (time := time_of(row.get(mapped.time), number)):
            shared["time"] = time
        if mapped.version and (version := word_of(row.get(mapped.version))):
            shared["modelversion"] = version
        yield _event(shared, "request", {"inputs": _tensors(row, table.features)})
        if mapped.outputs:
            answer = {"model_name": name, "outputs": _tensors(row, table.outputs)}
            yield _event(shared, "response", answer)
        labels = {
            label: value
            for label in mapped.labels
            if (value := plain_value(row.get(label))) is not None
        }
        if labels:
            yield _feedback(shared, request_id, mapped.deployment, labels)


def _event(shared: dict[str, str], kind: str, payload: object) -> CapturedEvent:
    attributes = orjson.dumps({**shared, "type": _TYPES + kind})[:-1]
    return CapturedEvent(attributes, orjson.dumps(payload), is_embedded=True)


def _feedback(
    shared: dict[str, str], request_id: str, deployment: str, labels: dict[str, Any]
) -> CapturedEvent:
    # Another id than the inference's: it is another event.
    attributes = {**shared, "type": _FEEDBACK, "id": f"{request_id}-labels"}
    item = {"deployment": deployment, "request_id": request_id, "row": 0, "labels": labels}
    if "time" in shared:
        item["time"] = shared["time"]
    return CapturedEvent(orjson.dumps(attributes)[:-1], orjson.dumps(item), is_embedded=True)


def _tensors(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[dict[str, Any]]:
    tensors = []
    for column, known in columns.items():
        value = plain_value(row.get(column))
        datatype = known or datatype_of(value)
        if datatype == FLOAT and isinstance(value, int):
            value = float(value)
        tensors.append({"name": column, "shape": [1], "datatype": datatype, "data": [value]})
    return tensors
