import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from sidelight.logger._accounting import DROP_REASONS, Accounting


def samples(accounting: Accounting, **labels: str) -> dict[tuple[str, ...], float]:
    names = {"namespace": "prod", "deployment": "flights"} | labels
    text = accounting.prometheus(**names).decode()
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
    accounting.spool_bytes = 77
    accounting.memory_bytes = 12

    found = samples(accounting)

    events = "sidelight_capture_events_total"
    assert found[events, "seen", ""] == 9
    assert found[events, "sent", ""] == 4
    assert found[events, "sampled_out", ""] == 1
    assert {reason: found[events, "dropped", reason] for reason in DROP_REASONS} == {
        reason: 2.0 * (reason == "spool_full") for reason in DROP_REASONS
    }
    assert found["sidelight_capture_pending_events",] == 2
    assert found["sidelight_capture_pending_bytes",] == 12
    assert found["sidelight_capture_spool_bytes",] == 77
    assert found["sidelight_capture_sink_errors_total", "status_500"] == 1
    assert found["sidelight_capture_spool_errors_total",] == 1


def test_added_time_is_a_cumulative_histogram() -> None:
    accounting = Accounting()
    for seconds in (0.00005, 0.00006, 0.02, 7.0):
        accounting.observe_added(seconds)

    found = samples(accounting)

    name = "sidelight_capture_added_seconds"
    assert found[f"{name}_bucket", "5e-05"] == 1
    assert found[f"{name}_bucket", "0.0001"] == 2
    assert found[f"{name}_bucket", "0.025"] == 3
    assert found[f"{name}_bucket", "1"] == 3
    assert found[f"{name}_bucket", "+Inf"] == found[f"{name}_count",] == 4
    assert found[f"{name}_sum",] == pytest.approx(7.02011)


def test_labels_are_escaped() -> None:
    assert samples(Accounting(), deployment='a"b\\c\nd')
