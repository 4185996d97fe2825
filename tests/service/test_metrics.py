"""The text exposition: documented names, read back by the official parser."""

from prometheus_client.parser import text_string_to_metric_families

from sidelight.service._metrics import (
    LATENCY_BOUNDS_S,
    METRICS,
    Labels,
    observe,
    render,
    split_name,
)

FLIGHTS = split_name("prod/flights")


def _families(text: bytes) -> dict[str, object]:
    return {family.name: family for family in text_string_to_metric_families(text.decode())}


def test_every_documented_metric_is_exposed_and_no_other() -> None:
    names = set(_families(render({}, {})))

    assert names == {f"sidelight_{name.removesuffix('_total')}" for name in METRICS}


def test_counter_keeps_its_labels_and_value() -> None:
    counters = {("inferences_total", (*FLIGHTS, ("version", "3"))): 7.0}

    text = render(counters, {}).decode()

    line = 'sidelight_inferences_total{deployment="flights",namespace="prod",version="3"} 7.0'
    assert line in text.splitlines() or (
        'sidelight_inferences_total{namespace="prod",deployment="flights",version="3"} 7.0' in text
    )


def test_histogram_is_cumulative_and_ends_with_every_observation() -> None:
    counts: dict[tuple[str, Labels], float] = {}
    observe(counts, "model_latency_seconds", FLIGHTS, [0.0005, 0.003, 99.0])

    family = next(
        item
        for item in text_string_to_metric_families(render(counts, {}).decode())
        if item.name == "sidelight_model_latency_seconds"
    )
    buckets = [sample.value for sample in family.samples if sample.name.endswith("_bucket")]

    assert len(buckets) == len(LATENCY_BOUNDS_S) + 1
    assert buckets == sorted(buckets)
    assert (buckets[0], buckets[-1]) == (1, 3)


def test_name_of_a_deployment_with_odd_characters_is_escaped() -> None:
    counters = {("reference_rows", split_name('prod/a"b\\c\nd')): 1.0}

    families = list(text_string_to_metric_families(render({}, counters).decode()))

    sample = next(item for item in families if item.name == "sidelight_reference_rows").samples[0]
    assert sample.labels["deployment"] == 'a"b\\c\nd'
