import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.logger._outlet_circuit import Circuit


def test_it_opens_after_so_many_failures_in_a_row_and_counts_that_once() -> None:
    circuit = Circuit(open_after=3, longest_s=10.0, seed=1)
    states = []
    for _ in range(5):
        circuit.fail()
        states.append(circuit.state)

    assert states == ["closed", "closed", "open", "open", "open"]
    assert circuit.n_openings == 1


def test_a_success_in_between_begins_the_count_again() -> None:
    circuit = Circuit(open_after=2, longest_s=10.0, seed=1)
    for _ in range(5):
        circuit.fail()
        circuit.succeed()

    assert circuit.state == "closed"
    assert circuit.n_openings == 0


def test_a_probe_that_fails_opens_it_again_and_one_that_succeeds_closes_it() -> None:
    circuit = Circuit(open_after=1, longest_s=10.0, seed=1)
    states = []
    circuit.fail()
    for move in (circuit.probe, circuit.fail, circuit.probe, circuit.succeed):
        move()
        states.append(circuit.state)

    assert states == ["half_open", "open", "half_open", "closed"]
    assert (circuit.state, circuit.n_failures, circuit.n_openings) == ("closed", 0, 1)


def test_a_closed_one_needs_no_probe() -> None:
    circuit = Circuit(open_after=1, longest_s=10.0)
    circuit.probe()

    assert circuit.is_closed


@given(
    st.integers(0, 40),
    st.one_of(st.none(), st.floats(0, 1e6), st.just(float("inf"))),
    st.integers(0, 9),
)
def test_a_pause_is_within_the_bound_and_as_long_as_was_asked_for(
    n_failures: int, retry_after_s: float | None, seed: int
) -> None:
    circuit = Circuit(open_after=5, longest_s=10.0, seed=seed)
    for _ in range(n_failures):
        circuit.fail()

    pause_s = circuit.fail(retry_after_s)

    assert min(retry_after_s or 0.0, 10.0) <= pause_s <= 10.0
    if retry_after_s is None:
        assert pause_s <= 0.1 * 2**n_failures


def test_pauses_are_spread_over_their_whole_range() -> None:
    circuit = Circuit(open_after=5, longest_s=10.0, seed=1)
    for _ in range(20):
        circuit.fail()
    pauses = [circuit.fail() for _ in range(400)]

    assert min(pauses) < 0.5
    assert max(pauses) > 9.5
    assert sum(pauses) / 400 == pytest.approx(5, abs=0.6)
