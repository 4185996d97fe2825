"""Limits, counters and failures of the one component that calls live models."""

import itertools
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.explainers import (
    Answer,
    Background,
    BadAnswer,
    Broker,
    Columns,
    DeadlineExceeded,
    Explained,
    Grid,
    Limits,
    ModelError,
    ModelUnavailable,
    ParameterError,
    Predict,
    Shapley,
    Target,
    VersionChanged,
)
from sidelight.explainers._grid import distinct
from sidelight.explainers._pacing import Pace
from sidelight.explainers._remembering import RememberedAnswers

TARGET = Target(deployment="test/model")
FAST = Limits(rows_per_second=1e9)


def smooth(columns: Columns) -> Any:
    table: Any = np.array(columns)
    slopes = np.linspace(-1, 1, len(table))[:, None]
    return 1 / (1 + np.exp(-(slopes * table).sum(axis=0) - table[0] * table[-1]))


@dataclass
class Counting:
    """A model that counts, and may do something else before it answers."""

    before: Callable[[int], None] = lambda _: None
    version: str | None = None
    calls: int = 0
    rows: int = 0
    largest: int = 0
    open_now: int = 0
    open_most: int = 0
    seen: set[tuple[Any, ...]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def predict(self, columns: Columns, *, timeout_s: float) -> Answer:
        assert timeout_s > 0
        rows = list(zip(*columns, strict=True))
        with self.lock:
            self.calls += 1
            self.rows += len(rows)
            self.largest = max(self.largest, len(rows))
            self.open_now += 1
            self.open_most = max(self.open_most, self.open_now)
            self.seen.update(rows)
            number = self.calls
        try:
            self.before(number)
            return Answer(values=smooth(columns)[:, None], version=self.version)
        finally:
            with self.lock:
                self.open_now -= 1


def continuous(n_features: int, n_rows: int, seed: int = 0) -> tuple[list[float], Background]:
    rng = np.random.default_rng(seed)
    rows = [tuple(row) for row in rng.normal(size=(n_rows, n_features)).tolist()]
    names = tuple(f"x{index}" for index in range(n_features))
    return rng.normal(size=n_features).tolist(), Background(names=names, rows=rows)


def explained(
    model: Predict,
    broker: Broker,
    *,
    n_features: int = 8,
    n_rows: int = 20,
    seed: int = 0,
    budget: int = 60_000,
    deadline_s: float = 3600,
    target: Target = TARGET,
) -> Explained:
    instance, background = continuous(n_features, n_rows, seed)
    return Shapley(budget_rows=budget).explain(
        [instance],
        background,
        broker=broker,
        model=model,
        target=target,
        deadline_s=deadline_s,
    )


@pytest.mark.parametrize("budget", [60_000, 3_000])
def test_cost_is_what_the_model_counted(budget: int) -> None:
    model = Counting()
    with Broker(FAST) as broker:
        answer = explained(model, broker, n_features=9, budget=budget)

    assert answer.cost.model_calls == model.calls
    assert answer.cost.model_rows == model.rows == len(model.seen)
    assert answer.cost.unique_rows == model.rows
    assert answer.cost.cache_hits == 0
    assert broker.total.model_rows == model.rows


def test_eight_explanations_at_once_stay_within_the_caps_and_change_nothing() -> None:
    barrier = threading.Barrier(3)

    def linger(number: int) -> None:
        # The first calls wait until the pool is full, so that the cap is really reached.
        if number <= 3:
            barrier.wait(60)

    model = Counting(before=linger)
    limits = Limits(calls_in_flight=3, rows_per_call=100, rows_per_second=1e9)
    with Broker(limits) as broker, ThreadPoolExecutor(8) as pool:
        together = list(
            pool.map(lambda seed: explained(model, broker, n_rows=4, seed=seed), range(8))
        )
    with Broker(FAST) as broker:
        alone = [explained(Counting(), broker, n_rows=4, seed=seed) for seed in range(8)]

    assert model.open_most == 3
    assert model.largest <= 100
    assert sum(answer.cost.model_calls for answer in together) == model.calls
    assert sum(answer.cost.model_rows for answer in together) == model.rows
    for one, other in zip(together, alone, strict=True):
        assert [item.value for item in one.rows[0].attributions.values()] == pytest.approx(
            [item.value for item in other.rows[0].attributions.values()], abs=1e-12
        )


def test_calls_are_bounded_by_bytes() -> None:
    model = Counting()
    with Broker(Limits(bytes_per_call=1_000, rows_per_second=1e9)) as broker:
        explained(model, broker, n_features=5, n_rows=5)

    # Five numbers of at most 20 bytes each.
    assert model.largest == 10


def test_slow_pace_sends_small_calls() -> None:
    assert Limits(rows_per_second=50).rows_at_once == 50
    assert Limits(rows_per_second=0.5).rows_at_once == 1


@given(st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 100)), min_size=1, max_size=60))
def test_pace_is_kept_in_every_second(bookings: list[tuple[float, int]]) -> None:
    now = 0.0
    pace = Pace(100.0, lambda: now)
    sent = []
    for pause, n_rows in bookings:
        now += pause
        wait = pace.book(n_rows, until=math.inf)
        assert wait is not None
        sent.append((now + wait, n_rows))

    for start, _ in sent:
        within = [n_rows for at, n_rows in sent if start <= at < start + 1 - 1e-9]
        # What begins within the second, beyond its last call, fits the rate.
        assert sum(within[:-1]) <= 100 + 1e-6


def test_booking_beyond_the_deadline_is_refused_and_costs_others_nothing() -> None:
    pace = Pace(10.0, lambda: 0.0)

    assert pace.book(10, until=0.5) == 0
    assert pace.book(10, until=0.5) is None
    assert pace.book(1, until=5.0) == pytest.approx(1.0)


def test_slow_model_is_given_up_at_the_deadline() -> None:
    gate = threading.Event()
    asked = threading.Event()

    def hold(_: int) -> None:
        asked.set()
        gate.wait(60)

    model = Counting(before=hold)
    # The deadline passes when the model has been asked, however long that took.
    limits = Limits(rows_per_second=1e9, calls_in_flight=1)
    with Broker(limits, clock=lambda: 1.0 if asked.is_set() else 0.0) as broker:
        with pytest.raises(DeadlineExceeded):
            explained(model, broker, deadline_s=0.1)
        n_held = model.open_now
        gate.set()

    assert n_held


def test_time_out_of_a_call_at_the_deadline_is_the_deadlines() -> None:
    now = itertools.count()

    def late(_: int) -> None:
        for _ in range(100):
            next(now)
        raise ModelUnavailable("no answer in time")

    with (
        Broker(FAST, clock=lambda: float(next(now))) as broker,
        pytest.raises(DeadlineExceeded),
    ):
        explained(Counting(before=late), broker, deadline_s=50)


@pytest.mark.parametrize(
    ("n_features", "budget", "plan"),
    [
        pytest.param(8, 60_000, "by_coalition", id="exact"),
        pytest.param(12, 20_000, "kernel", id="kernel"),
        pytest.param(100, 6_000, "permutation", id="permutation"),
    ],
)
@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(ModelUnavailable("gone"), id="dies"),
        pytest.param(BadAnswer("x", expected="y", got="z"), id="rubbish"),
    ],
)
def test_model_that_fails_in_the_middle_leaves_the_last_valid_estimate(
    n_features: int, budget: int, plan: str, failure: ModelError
) -> None:
    def fail_later(number: int) -> None:
        if number > 40:
            raise failure

    limits = Limits(rows_per_call=100, rows_per_second=1e9, calls_in_flight=1)
    with Broker(limits) as broker:
        answer = explained(
            Counting(before=fail_later), broker, n_features=n_features, budget=budget
        )
    with Broker(FAST) as broker:
        whole = explained(Counting(), broker, n_features=n_features, budget=budget)

    assert answer.plans == whole.plans == (plan,)
    assert not answer.quality.converged
    assert answer.quality.local_error < 1e-9
    errors = [item.standard_error for item in answer.rows[0].attributions.values()]
    assert max(errors) > 0
    for name, item in answer.rows[0].attributions.items():
        allowed = 5 * math.hypot(
            item.standard_error, whole.rows[0].attributions[name].standard_error
        )
        assert abs(item.value - whole.rows[0].attributions[name].value) <= allowed + 1e-9


@pytest.mark.parametrize("n_features", [8, 14, 60])
def test_model_that_is_down_from_the_start_is_an_error(n_features: int) -> None:
    def down(_: int) -> None:
        raise ModelUnavailable("connection refused", reached=False)

    with Broker(FAST) as broker:
        with pytest.raises(ModelUnavailable):
            explained(Counting(before=down), broker, n_features=n_features, budget=15_000)
        # Its siblings are refused too, each in its own time.
        broker._shared.pool.shutdown(wait=True)

    assert broker.total.model_calls == 0


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(np.zeros((3, 1)), id="rows"),
        pytest.param(np.zeros(20), id="no-outputs"),
        pytest.param(np.zeros((20, 0)), id="no-columns"),
        pytest.param(np.full((20, 1), np.nan), id="nan"),
        pytest.param(np.full((20, 1), np.inf), id="infinite"),
    ],
)
def test_rubbish_is_an_error(values: Any) -> None:
    class Rubbish:
        def predict(self, columns: Columns, *, timeout_s: float) -> Answer:  # noqa: ARG002
            wide = (
                values
                if len(values) == 3
                else np.resize(values, (len(columns[0]), *values.shape[1:]))
            )
            return Answer(values=wide)

    with Broker(FAST) as broker, pytest.raises(BadAnswer):
        explained(Rubbish(), broker)


def test_broken_connection_is_tried_once_more() -> None:
    def break_once(number: int) -> None:
        if number == 1:
            raise ModelUnavailable("reset", again=True)

    model = Counting(before=break_once)
    with Broker(FAST) as broker:
        answer = explained(model, broker, n_features=3, n_rows=3)

    assert answer.quality.converged
    assert answer.cost.model_calls == model.calls
    assert answer.cost.model_rows == model.rows


def test_calls_that_wait_for_their_turn_are_not_sent_after_a_failure() -> None:
    def fail(_: int) -> None:
        raise ModelUnavailable("gone")

    model = Counting(before=fail)
    # The second would have its turn in a quarter of an hour.
    limits = Limits(rows_per_call=10, rows_per_second=0.001, calls_in_flight=3)
    with Broker(limits) as broker:
        with pytest.raises(ModelUnavailable):
            explained(model, broker, deadline_s=1e6)
        broker._shared.pool.shutdown(wait=True)

    assert model.calls == 1


def test_pace_that_outlasts_the_deadline_ends_at_it() -> None:
    model = Counting()
    with Broker(Limits(rows_per_second=0.001)) as broker, pytest.raises(DeadlineExceeded):
        explained(model, broker, deadline_s=500)

    assert model.rows == 1


def test_connection_that_breaks_twice_is_given_up() -> None:
    def always(_: int) -> None:
        raise ModelUnavailable("reset", again=True)

    model = Counting(before=always)
    with Broker(FAST) as broker, pytest.raises(ModelUnavailable):
        explained(model, broker, n_features=3, n_rows=3)

    assert model.calls == 2


def test_version_that_changes_once_is_asked_again_from_the_start() -> None:
    model = Counting(version="1")

    def switch(number: int) -> None:
        if number == 3:
            model.version = "2"

    model.before = switch
    limits = Limits(rows_per_call=200, calls_in_flight=1, rows_per_second=1e9)
    with Broker(limits) as broker:
        answer = explained(model, broker)

    assert answer.versions == ("2",)
    assert answer.cost.model_rows == model.rows > answer.cost.unique_rows / 2


def test_traffic_split_between_versions_is_an_error() -> None:
    model = Counting()

    def alternate(number: int) -> None:
        model.version = str(number % 2)

    model.before = alternate
    limits = Limits(rows_per_call=200, calls_in_flight=1, rows_per_second=1e9)
    with Broker(limits) as broker, pytest.raises(VersionChanged):
        explained(model, broker)


def test_answers_of_another_version_are_not_remembered_for_it() -> None:
    with Broker(FAST) as broker:
        explained(Counting(), broker, target=Target(deployment="a/b", version="1"))
        other = explained(Counting(), broker, target=Target(deployment="a/b", version="2"))

    assert other.cost.cache_hits == 0


def test_partial_answers_come_with_the_error() -> None:
    def fail_later(number: int) -> None:
        if number == 2:
            raise ModelUnavailable("gone")

    instance, background = continuous(3, 6)
    grid = Grid.of(instance, background)
    limits = Limits(rows_per_call=4, calls_in_flight=1, rows_per_second=1e9)
    with Broker(limits) as broker:
        session = broker.session(Counting(before=fail_later), TARGET, grid, deadline=math.inf)
        with pytest.raises(ModelUnavailable) as caught:
            session.ask(grid.background)

    assert caught.value.answers is not None
    assert np.isfinite(caught.value.answers).tolist() == [True] * 4 + [False] * 2


@given(st.integers(0, 1_000), st.integers(1, 60), st.integers(1, 5))
def test_distinct_rows_restore_all_rows(seed: int, n_rows: int, n_features: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 3, (n_rows, n_features), dtype=np.uint8)

    first, inverse = distinct(codes)

    assert (codes[first][inverse] == codes).all()
    assert len(first) == len(set(map(tuple, codes.tolist())))
    assert (np.diff(first) > 0).all()


def test_oldest_answer_is_forgotten_first() -> None:
    answers = RememberedAnswers(2)
    answers.remember([(b"a", 1.0), (b"b", 2.0)])
    answers.recall([b"a"])
    answers.remember([(b"c", 3.0)])

    assert answers.recall([b"a", b"b", b"c"]) == [1.0, None, 3.0]
    assert len(answers) == 2


@pytest.mark.parametrize(
    "name", ["calls_in_flight", "rows_per_second", "rows_per_call", "bytes_per_call"]
)
def test_limit_that_lets_nothing_through_is_named(name: str) -> None:
    with pytest.raises(ParameterError) as caught:
        Limits(**{name: 0})

    assert caught.value.name == name
