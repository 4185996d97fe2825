"""The console: one page, rendered on the server, that works without scripts."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, Template, select_autoescape

from sidelight.service._context import Context
from sidelight.service._deployments import deployment_json, deployment_names
from sidelight.service._version import version

_LAST = 20


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("sidelight.service", "templates"),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("console.html")


def render_console(context: Context) -> str:
    """Return the page as it is now."""
    documents = context.documents
    alarms = [value for _, _, value in documents.find("alarms", limit=_LAST)]
    inferences, _ = context.inferences.find(limit=_LAST)
    return _template().render(
        version=version(),
        deployments=[deployment_json(documents, name) for name in deployment_names(documents)],
        open_alarms=[alarm for alarm in alarms if alarm["state"] != "ended"],
        ended_alarms=[alarm for alarm in alarms if alarm["state"] == "ended"],
        inferences=[_short(item.to_json()) for item in inferences],
    )


def _short(inference: dict[str, Any]) -> dict[str, Any]:
    first = inference["rows"][0] if inference["rows"] else {"features": {}, "outputs": {}}
    return {
        **inference,
        "n_rows": len(inference["rows"]),
        "features": _pairs(first["features"]),
        "outputs": _pairs(first["outputs"]),
        "outlier_score": first.get("outlier_score"),
    }


def _pairs(values: dict[str, Any], *, shown: int = 6) -> str:
    text = ", ".join(f"{name} {_value(value)}" for name, value in list(values.items())[:shown])
    return text + (" …" if len(values) > shown else "")


def _value(value: Any) -> str:
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return str(value).lower()
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 24 else text[:23] + "…"  # noqa: PLR2004 - fits a table cell
