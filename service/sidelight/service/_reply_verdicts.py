"""What other detectors replied, in the form of verdicts.

Their numbers stay in their own units: a threshold of alibi-detect is one of p-values, and whether
there is drift is what the sender says, never computed again.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

REPLIES: Final = "replies"

Reply = dict[str, Any]


def reply_verdicts(reply: Reply, feature_names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the verdicts of a reply: one about all, then one for each feature it tells apart.

    Parameters
    ----------
    reply : dict
        As ``detector_reply`` returns it.
    feature_names : sequence of str
        Of the deployment, in order. Where a reply tells apart another number of features they are
        called ``f0, f1, ...``.

    Returns
    -------
    list of dict
        The fields of a verdict; ``kind``, ``source`` and ``request_id`` beside them, which our own
        verdicts do not have.

    """
    data = reply["data"] if isinstance(reply["data"], dict) else {}
    if reply["kind"] == "outlier":
        return [_outlier(reply, data)]
    return _drift(reply, data, feature_names)


def _outlier(reply: Reply, data: dict[str, Any]) -> dict[str, Any]:
    flags = _flags(data.get("is_outlier"))
    if not flags:
        return _verdict(reply, "insufficient", reason="the reply has no result")
    n_outliers = sum(flags)
    return _verdict(
        reply,
        "drift" if n_outliers else "ok",
        distance=max(_numbers(data.get("instance_score")), default=None),
        threshold=_first(data.get("threshold")),
        reason=f"{n_outliers} of {len(flags)} rows are outliers",
    )


def _drift(reply: Reply, data: dict[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    flags = _flags(data.get("is_drift"))
    if not flags:
        return [_verdict(reply, "insufficient", reason="the reply has no result")]
    distances, p_values = _numbers(data.get("distance")), _numbers(data.get("p_val"))
    n_features = max(len(flags), len(distances), len(p_values))
    whole = _verdict(
        reply,
        "drift" if any(flags) else "ok",
        distance=max(distances, default=None),
        p_value=min(p_values, default=None),
        threshold=_first(data.get("threshold")),
    )
    if n_features == 1:
        return [whole]
    if n_features != len(names):
        names = [f"f{index}" for index in range(n_features)]
    whole["reason"] = f"largest distance and smallest p-value of {n_features} features"
    return [whole, *_by_feature(reply, data, flags, names)]


def _by_feature(
    reply: Reply, data: dict[str, Any], flags: list[bool], names: Sequence[str]
) -> list[dict[str, Any]]:
    n = len(names)
    distances, p_values, thresholds = (
        _spread(data.get(name), n) for name in ("distance", "p_val", "threshold")
    )
    verdicts = []
    for index, name in enumerate(names):
        p_value, threshold = p_values[index], thresholds[index]
        if len(flags) == n:
            has_drifted: bool | None = flags[index]
        elif p_value is not None and threshold is not None:
            # Said of all together only; the detectors that do decide by the p-values.
            has_drifted = p_value < threshold
        else:
            has_drifted = None
        verdicts.append(
            _verdict(
                reply,
                "insufficient" if has_drifted is None else "drift" if has_drifted else "ok",
                feature=name,
                distance=distances[index],
                p_value=p_value,
                threshold=threshold,
                reason="the reply does not decide by feature" if has_drifted is None else "",
            )
        )
    return verdicts


def _verdict(
    reply: Reply,
    state: str,
    *,
    feature: str | None = None,
    distance: float | None = None,
    p_value: float | None = None,
    threshold: float | None = None,
    reason: str = "",
) -> dict[str, Any]:
    return {
        "deployment": reply["deployment"],
        "version": None,
        "detector": _detector(reply),
        "feature": feature,
        "time": reply["time"],
        "rows": reply["rows"],
        "state": state,
        "distance": distance,
        "p_value": p_value,
        "log10_evidence": None,
        "threshold": threshold,
        "reason": reason,
        "kind": reply["kind"],
        "source": reply["source"],
        "request_id": reply["request_id"],
    }


def _detector(reply: Reply) -> str:
    """Return the detector's own name, or else who sent it."""
    meta = reply["meta"] if isinstance(reply["meta"], dict) else {}
    name = meta.get("name")
    return name if isinstance(name, str) and name else str(reply["source"])


def _flags(value: Any) -> list[bool]:
    items = value if isinstance(value, list) else [value]
    return [bool(item) for item in items if isinstance(item, bool | int | float)]


def _numbers(value: Any) -> list[float]:
    items = value if isinstance(value, list) else [value]
    return [number for item in items if (number := _number(item)) is not None]


def _spread(value: Any, n: int) -> list[float | None]:
    """Return one value for each feature: those of a list of as many, or a single one for all."""
    if isinstance(value, list):
        return [_number(item) for item in value] if len(value) == n else [None] * n
    return [_number(value)] * n


def _first(value: Any) -> float | None:
    numbers = _numbers(value)
    return numbers[0] if numbers else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
