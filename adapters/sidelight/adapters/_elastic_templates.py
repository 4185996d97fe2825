"""What the server is told of our indices before it gets the first document."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sidelight.adapters._elastic_client import Flavour
from sidelight.adapters._elastic_columns import MAPPING, columns_index

MAX_TERM: Final = 1024
"""Characters of a text that is still indexed as one term; a term has at most 32,766 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions:
    """How indices are made.

    Parameters
    ----------
    prefix : str, default "sidelight"
        Every name of ours begins with it.
    shards, replicas : int
        Of each index.
    refresh : str, default "1s"
        When what was written can be found.
    max_fields : int, default 500
        Columns of one document that are indexed; the others are kept and cannot be searched.
    delete_after : str, optional
        Age at which the lifecycle policy deletes an index, as ``365d``.
    max_days : int, default 400
        Indices of one deployment; rows of further days share one.
    keeps_long : bool, default False
        Whether lists and texts of any length are copied: nobody else has them for queries.

    """

    prefix: str = "sidelight"
    shards: int = 1
    replicas: int = 1
    refresh: str = "1s"
    max_fields: int = 500
    delete_after: str | None = None
    max_days: int = 400
    keeps_long: bool = False


def policy(options: IndexOptions) -> Mapping[str, Any]:
    """Return the lifecycle policy: old indices are recovered last, and then deleted."""
    phases: dict[str, Any] = {
        "hot": {"actions": {"set_priority": {"priority": 100}}},
        # Nothing that closes an index to writing, as merging does: labels come late.
        "warm": {"min_age": "7d", "actions": {"set_priority": {"priority": 50}}},
    }
    if options.delete_after is not None:
        phases["delete"] = {"min_age": options.delete_after, "actions": {"delete": {}}}
    return {"policy": {"phases": phases}}


def components(
    options: IndexOptions, flavour: Flavour, *, lifecycle: bool
) -> dict[str, dict[str, Any]]:
    """Return the component templates by their names."""
    return {
        f"{options.prefix}-settings": {
            "template": {"settings": index_settings(options, flavour, lifecycle=lifecycle)}
        },
        f"{options.prefix}-mappings": {"template": {"mappings": _mappings(flavour)}},
    }


def index_templates(options: IndexOptions) -> dict[str, dict[str, Any]]:
    """Return the index templates by their names."""
    return {
        f"{options.prefix}-inferences": {
            "index_patterns": [f"{options.prefix}-inferences-*"],
            "composed_of": [f"{options.prefix}-settings", f"{options.prefix}-mappings"],
            "priority": 200,
        },
        f"{options.prefix}-alarms": {
            "index_patterns": [f"{options.prefix}-alarms"],
            "template": {
                "settings": {
                    "number_of_shards": 1,
                    "number_of_replicas": options.replicas,
                    "index.mapping.ignore_malformed": True,
                },
                "mappings": {"dynamic": False, "properties": _ALARM},
            },
            "priority": 200,
        },
        columns_index(options.prefix): {
            "index_patterns": [columns_index(options.prefix)],
            "template": {
                "settings": {"number_of_shards": 1, "number_of_replicas": options.replicas},
                "mappings": MAPPING,
            },
            "priority": 200,
        },
    }


def later_fields() -> Mapping[str, Any]:
    """Return the mapping of what indices of an older version do not have."""
    return {"properties": {name: _FIXED[name] for name in ("layout", "unfound", "unfound_labels")}}


def index_settings(options: IndexOptions, flavour: Flavour, *, lifecycle: bool) -> dict[str, Any]:
    """Return the settings of each index."""
    settings: dict[str, Any] = {
        "number_of_shards": options.shards,
        "number_of_replicas": options.replicas,
        "refresh_interval": options.refresh,
        # A number that is none costs its field, not the document.
        "index.mapping.ignore_malformed": True,
        # Objects count as fields, and ours take some.
        "index.mapping.total_fields.limit": options.max_fields + 100,
    }
    if flavour == "elasticsearch":
        # Columns of other layouts may use the room up: they are kept, and not searchable.
        settings["index.mapping.total_fields.ignore_dynamic_beyond_limit"] = True
    if lifecycle:
        settings["index.lifecycle.name"] = f"{options.prefix}-inferences"
    return settings


def _keyword(length: int = MAX_TERM) -> dict[str, Any]:
    return {"type": "keyword", "ignore_above": length}


_ALARM: Final[Mapping[str, Any]] = {
    **{
        name: _keyword()
        for name in ("id", "deployment", "namespace", "name", "version", "kind", "detector")
    },
    "state": _keyword(),
    **{name: {"type": "date"} for name in ("since", "raised_at", "ended_at")},
    "raised_at_row": {"type": "long"},
    "log10_evidence": {"type": "double"},
    "features": {
        "properties": {
            "name": _keyword(),
            "distance": {"type": "double"},
            "share": {"type": "double"},
        }
    },
}

_FIXED: Final[Mapping[str, Any]] = {
    "@timestamp": {"type": "date"},
    "time_us": {"type": "long"},
    **{
        name: _keyword()
        for name in (
            *("inference_id", "deployment", "namespace", "name", "version", "component"),
            *("endpoint", "protocol", "orphan", "alarms", "reduced", "layout"),
            *("unfound", "unfound_labels"),
        )
    },
    # Labels are joined by it: a long one too.
    "request_id": _keyword(8191),
    **{name: {"type": "integer"} for name in ("row", "rows", "revision", "status")},
    **{name: {"type": "double"} for name in ("latency_ms", "outlier_score", "outlier_p_value")},
    "synthetic": {"type": "boolean"},
    "outlier": {"type": "boolean"},
    "unindexed": {"type": "object", "enabled": False},
    "raw": {"type": "object", "enabled": False},
}


def _mappings(flavour: Flavour) -> dict[str, Any]:
    tags: dict[str, Any]
    if flavour == "elasticsearch":
        tags = {"type": "flattened", "ignore_above": MAX_TERM}
    else:
        tags = {"type": "flat_object"}
    open_object = {"type": "object", "dynamic": True}
    return {
        "dynamic": False,
        # Text that looks like a date is text, or the second value of a category is refused.
        "date_detection": False,
        "numeric_detection": False,
        "dynamic_templates": _DYNAMIC,
        "properties": {
            **_FIXED,
            "tags": tags,
            **dict.fromkeys(("features", "outputs", "labels"), open_object),
        },
    }


# Whole numbers too: 2.5 in a field of whole numbers would be found as 2.
_DYNAMIC: Final = [
    {f"numbers_{kind}": {"match_mapping_type": kind, "mapping": {"type": "double"}}}
    for kind in ("long", "double")
] + [
    {f"terms_{kind}": {"match_mapping_type": kind, "mapping": _keyword()}}
    for kind in ("string", "boolean")
]
