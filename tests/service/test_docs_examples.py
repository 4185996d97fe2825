"""Every example of configuration in the documentation is one that can be read."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidelight.service._proxy_configuration import ProxyConfiguration
from sidelight.service._settings import Settings, load_settings

_ROOT = Path(__file__).parents[2]
_PAGES = sorted({_ROOT / "README.md", *(_ROOT / "docs").glob("*.md")})
_EXAMPLE = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_METRIC = re.compile(r"\bsidelight_[a-z0-9_]+[a-z0-9]\b")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def _examples() -> Iterator[Any]:
    for page in _PAGES:
        text = page.read_text()
        for match in _EXAMPLE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield pytest.param(match[1], id=f"{page.name}:{line}")


def _is_ours(content: dict[str, Any]) -> bool:
    return bool(content.keys() & (Settings.model_fields.keys() | {"proxy"}))


@pytest.mark.parametrize("text", list(_examples()))
def test_every_example_is_yaml_and_one_of_ours_is_a_configuration(
    text: str, tmp_path: Path
) -> None:
    path = tmp_path / "sidelight.yaml"
    path.write_text(text)
    content = yaml.safe_load(text)
    assert isinstance(content, dict)
    if _is_ours(content):
        load_settings(path, {})
    if "proxy" in content:
        assert ProxyConfiguration(file=path, options={}).read().all_sinks


def test_examples_are_found() -> None:
    ours = [
        example.values[0] for example in _examples() if _is_ours(yaml.safe_load(example.values[0]))
    ]

    assert len(ours) >= 5


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_every_metric_that_is_named_is_in_the_reference(page: Path) -> None:
    known = set(_METRIC.findall((_ROOT / "docs" / "reference.md").read_text()))
    named = {re.sub(r"_bucket$", "", name) for name in _METRIC.findall(page.read_text())}

    assert named - known == set()


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_page_and_a_heading_of_it(page: Path) -> None:
    missing = []
    for link in _LINK.findall(page.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            missing.append(link)

    assert missing == []


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
