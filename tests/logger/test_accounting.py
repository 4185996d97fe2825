from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from sidelight.logger._accounting import DROP_REASONS, Accounting, Accounts, AddedTime, combined
from sidelight.logger._accounting_text import capture_metrics


def samples(
    accounts: dict[str, Accounts] | None = None, added: AddedTime | None = None, **labels: str
) -> dict[tuple[str, ...], float]:
    names = {"namespace": "prod", "deployment": "flights"} | labels
    text = capture_metrics(accounts or {}, added or AddedTime(), **names).decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert sample.labels["namespace"] == names["namespace"]
            assert sample.labels["deployment"] == names["deployment"]
            rest = sorted(set(sample.labels) - set(names))
            found[sample.name, *(sample.labels[name] for name in rest)] = sample.value
    return found


moves = st.lists(
    st.tuples(st.sampled_from(["see", "send", "drop", "sample_out"]), st.integers(0, 9)),
    max_size=30,
)


@given(moves)
def test_whatever_happens_the_numbers_add_up(moves: list[tuple[str, int]]) -> None:
    accounting = Accounting()
    for move, n_events in moves:
        if move == "drop":
            accounting.drop(n_events, "rejected")
        else:
            getattr(accounting, move)(n_events)

        assert accounting.snapshot().unexplained == 0


def test_the_metrics_have_the_names_and_labels_of_the_design() -> None:
    accounting = Accounting()
    accounting.see(9)
    accounting.send(4)
    accounting.drop(2, "spool_full")
    accounting.sample_out(1)
    accounting.fail("status_500")
    accounting.fail_spool()
    accounts = replace(
        accounting.snapshot(),
        memory_bytes=12,
        memory_events=3,
        spool_bytes=77,
        spool_events=5,
        circuit="half_open",
        circuit_openings=6,
        oldest_s=1.5,
    )

    found = samples({"sink": accounts, "other": Accounting().snapshot()})

    events = "sidelight_capture_events_total"
    assert found[events, "seen", "", "sink"] == 9
    assert found[events, "seen", "", "other"] == 0
    assert found[events, "sent", "", "sink"] == 4
    assert found[events, "sampled_out", "", "sink"] == 1
    assert {reason: found[events, "dropped", reason, "sink"] for reason in DROP_REASONS} == {
        reason: 2.0 * (reason == "spool_full") for reason in DROP_REASONS
    }
    assert {
        "pending_events": 2,
        "pending_bytes": 12,
        "queue_events": 3,
        "spool_bytes": 77,
        "spool_events": 5,
        "sink_open": 0.5,
        "sink_openings_total": 6,
        "oldest_pending_seconds": 1.5,
        "spool_errors_total": 1,
    }.items() <= {
        key[0].removeprefix("sidelight_capture_"): value
        for key, value in found.items()
        if key[1:] == ("sink",)
    }.items()
    assert found["sidelight_capture_sink_errors_total", "status_500", "sink"] == 1


def test_an_account_whose_events_are_in_two_places_adds_them_up() -> None:
    part = replace(Accounting().snapshot(), memory_bytes=1, spool_events=2, oldest_s=3.0)

    whole = combined([part, replace(part, oldest_s=1.0, circuit="open")])

    assert (whole.memory_bytes, whole.spool_events, whole.oldest_s) == (2, 4, 3.0)
    assert whole.circuit == "open"


def test_added_time_is_a_cumulative_histogram() -> None:
    added = AddedTime()
    for seconds in (0.00005, 0.00006, 0.02, 7.0):
        added.observe(seconds)

    found = samples(added=added)

    name = "sidelight_capture_added_seconds"
    assert found[f"{name}_bucket", "5e-05"] == 1
    assert found[f"{name}_bucket", "0.0001"] == 2
    assert found[f"{name}_bucket", "0.025"] == 3
    assert found[f"{name}_bucket", "1"] == 3
    assert found[f"{name}_bucket", "+Inf"] == found[f"{name}_count",] == 4
    assert found[f"{name}_sum",] == pytest.approx(7.02011)


def test_labels_are_escaped() -> None:
    name = 'a"b\\c\nd'

    assert samples({name: Accounting().snapshot()}, deployment=name)
