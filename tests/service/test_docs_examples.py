"""Every example of configuration in the documentation is one that can be read."""

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent
from typing import Any

import orjson
import pytest
import yaml

from sidelight.logger import Exchange
from sidelight.service._proxy_configuration import ProxyConfiguration
from sidelight.service._proxy_parts import build_parts
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


def _recipes() -> Iterator[Any]:
    """Yield rules, what is sent and what leaves, as the page on capture shows them."""
    text = (_ROOT / "docs" / "capture.md").read_text()
    text = text[text.index("### Recipes") : text.index("### Headers")]
    blocks = re.findall(r"^```(?:yaml|json)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) % 3 == 0
    for start in range(0, len(blocks), 3):
        yield pytest.param(*blocks[start : start + 3], id=f"recipe-{start // 3 + 1}")


@pytest.mark.parametrize(("rules", "sent", "leaves"), list(_recipes()))
def test_every_recipe_of_redaction_does_what_is_shown(
    rules: str, sent: str, leaves: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDELIGHT_PSEUDONYMS", "0123456789abcdef0123456789abcdef")
    section = "upstream: http://m\nsink: http://c/\n" + rules
    path = tmp_path / "sidelight.yaml"
    path.write_text(f"proxy:\n{indent(section, '  ')}")
    capture = build_parts(ProxyConfiguration(file=path, options={}).read()).capture

    request, _ = capture.events(_exchange(sent.encode()))

    assert orjson.loads(request.data) == orjson.loads(leaves)
    assert b'"redacted":"applied"' in request.attributes


def _exchange(body: bytes) -> Exchange:
    head = b"content-type: application/json\r\n\r\n"
    return Exchange(
        method=b"POST",
        target=b"/v2/models/m/infer",
        request_head=b"POST /v2/models/m/infer HTTP/1.1\r\n" + head,
        request_body=body,
        response_head=b"HTTP/1.1 200 OK\r\n" + head,
        response_body=b"{}",
        status=200,
        started_ns=0,
        finished_ns=0,
        latency_ms=1.0,
    )


def test_examples_are_found() -> None:
    ours = [
        example.values[0] for example in _examples() if _is_ours(yaml.safe_load(example.values[0]))
    ]

    assert len(ours) >= 5
    assert len(list(_recipes())) >= 3


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
