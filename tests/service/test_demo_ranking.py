import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from sidelight.service.demo import area_under_curve

pairs = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40)


@given(pairs.filter(lambda rows: len({truth for truth, _ in rows}) == 2))
def test_area_equals_that_of_scikit_learn(rows: list[tuple[bool, int]]) -> None:
    truth, scores = zip(*rows, strict=True)

    assert area_under_curve(truth, scores) == pytest.approx(roc_auc_score(truth, scores))


def test_area_of_one_kind_alone_is_not_a_number() -> None:
    assert math.isnan(area_under_curve(np.ones(3, dtype=bool), np.arange(3)))
