"""The configuration: precedence, and wrong keys named with their path."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from sidelight.service._proxy_settings import ProxyFile
from sidelight.service._quantities import seconds, size_bytes
from sidelight.service._settings import Settings, load_settings
from sidelight.service._settings_deployment import read_deployment
from sidelight.service._settings_section import Section
from sidelight.service.errors import ConfigurationError


def _file(folder: Path, text: str) -> Path:
    path = folder / "sidelight.yaml"
    path.write_text(text)
    return path


def test_no_configuration_at_all_is_enough() -> None:
    settings = load_settings(None, {})

    assert settings.listen.port == 8090
    assert settings.pairing.orphan_after == 60.0


def test_options_win_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _file(tmp_path, "listen: {host: '::1', port: 1}\ndata: /from/file\n")
    monkeypatch.setenv("SIDELIGHT_LISTEN__PORT", "2")
    monkeypatch.setenv("SIDELIGHT_DATA", "/from/environment")

    settings = load_settings(config, {"listen": {"port": 3}})

    assert (settings.listen.host, settings.listen.port) == ("::1", 3)
    assert settings.data == Path("/from/environment")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "deployments:\n  - name: a/b\n    refrence: {first_rows: 5}",
            "deployments[0].refrence: unknown key; did you mean reference?",
            id="typo",
        ),
        pytest.param(
            "pairing: {orphan_after: 60}",
            "pairing.orphan_after: expected a duration with its unit (ms, s, m, h, d) as in 60s, "
            "got 60",
            id="no-unit",
        ),
        pytest.param(
            "listen: {port: 70000}",
            "listen.port: Input should be less than or equal to 65535, got 70000",
            id="range",
        ),
        pytest.param(
            "deployments: [{name: flights}]",
            "deployments[0].name: expected namespace/name, got 'flights'",
            id="no-namespace",
        ),
        pytest.param(
            "deployments: [{name: a/b, schema: {columns: [{name: x, kind: number}]}}]",
            "deployments[0].schema: columns.x.kind: expected one of numeric, categorical, boolean, "
            "text, image, embedding, timestamp, got 'number'",
            id="schema",
        ),
        pytest.param(
            "deployments: [{name: a/b, model: {url: 'localhost:8080', name: m}}]",
            "deployments[0].model.url: expected an address that begins with http:// or https://, "
            "got 'localhost:8080'",
            id="address",
        ),
        pytest.param(
            "limits: {body: 16 megs}",
            "limits.body: expected a size such as 16MiB (KiB, MiB, GiB, TiB), got '16 megs'",
            id="size",
        ),
        pytest.param(
            "quotas: {prod: {events_per_sec: 1}}",
            "quotas.prod.events_per_sec: unknown key; did you mean events_per_second?",
            id="key-of-a-mapping",
        ),
        pytest.param(
            "deployments: [{name: a/b}, {name: a/c}, {name: a/b}]",
            "deployments: expected each name once, got a/b several times",
            id="twice",
        ),
        pytest.param(
            "data: ftp://host/folder",
            "data: expected a folder, or s3://BUCKET[/PREFIX], got 'ftp://host/folder'",
            id="address-of-data",
        ),
        pytest.param(
            "data: s3://",
            "data: expected a folder, or s3://BUCKET[/PREFIX], got 's3://'",
            id="no-bucket",
        ),
        pytest.param(
            "store: {lake: 5}",
            "store.lake: expected true, false or s3://BUCKET[/PREFIX], got 5",
            id="lake",
        ),
    ],
)
def test_wrong_key_is_named_with_its_path(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(_file(tmp_path, text), {})

    assert str(caught.value) == message


def test_every_wrong_key_has_a_line(tmp_path: Path) -> None:
    config = _file(tmp_path, "limitz: {}\nlisten: {prt: 1}\n")

    with pytest.raises(ConfigurationError) as caught:
        load_settings(config, {})

    assert str(caught.value).splitlines() == [
        "listen.prt: unknown key; did you mean port?",
        "limitz: unknown key; did you mean limits?",
    ]


def test_a_variable_that_is_no_json_where_a_list_is_expected_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SIDELIGHT_DEPLOYMENTS", "[a/b")

    with pytest.raises(ConfigurationError, match=r'^environment: .*"deployments".*JSON'):
        load_settings(None, {})


@pytest.mark.parametrize(
    "text", [pytest.param("a: [", id="no-yaml"), pytest.param("- a", id="a-list")]
)
def test_what_is_no_configuration_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    config = _file(tmp_path, text)

    with pytest.raises(ConfigurationError, match=str(config)):
        load_settings(config, {})


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_settings(tmp_path / "absent.yaml", {})


def test_words_that_begin_like_a_truth_are_words(tmp_path: Path) -> None:
    config = _file(
        tmp_path,
        "deployments: [{name: a/b, detection: {false_alarm_probability: 0.1, enabled: false},"
        " schema: {columns: [{name: true_label, kind: categorical, categories: [no, Truest]}]}}]",
    )

    (deployment,) = load_settings(config, {}).deployments

    assert deployment.detection.enabled is False
    assert deployment.detection.false_alarm_probability == 0.1
    assert deployment.schema is not None
    assert deployment.schema.columns[0].categories == ("no", "Truest")


def test_deployment_through_the_api_has_the_same_keys() -> None:
    value = {"reference": {"first_rows": 70}, "retention": "365d"}

    settings = read_deployment("prod/income", value)

    assert (settings.reference.first_rows, settings.retention) == (70, 365 * 86400.0)


_FACTORS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


@given(st.floats(0, 1e6).map(lambda value: round(value, 3)), st.sampled_from(sorted(_FACTORS)))
def test_duration_is_its_number_times_its_unit(number: float, unit: str) -> None:
    factor = _FACTORS[unit]

    assert seconds(f"{number:.3f}{unit}") == pytest.approx(number * factor)


@given(st.text(alphabet="0123456789.smhdKMiB -"))
def test_text_that_is_no_quantity_raises_nothing_else(text: str) -> None:
    for read in (seconds, size_bytes):
        with contextlib.suppress(ValueError):
            assert read(text) >= 0


def _models() -> list[type[BaseModel]]:
    """Return the sections, of ``serve`` and of the proxy."""
    return [Settings, ProxyFile, *Section.__subclasses__()]


@pytest.mark.parametrize("model", _models(), ids=lambda model: model.__name__)
def test_every_setting_is_documented(model: type[BaseModel]) -> None:
    undocumented = [name for name, field in model.model_fields.items() if not field.description]

    assert undocumented == []


def test_settings_survive_their_way_to_a_process() -> None:
    options: dict[str, Any] = {"deployments": [{"name": "a/b", "retention": "1h"}]}
    settings = load_settings(None, options)

    again = Settings(**settings.model_dump(mode="json", by_alias=True))

    assert again == settings
