"""What a deployment is compared with."""

import numpy as np
import pytest

from sidelight.detectors import (
    CategoricalReference,
    DetectionSettings,
    NumericReference,
    Reference,
    SampleError,
    SnapshotError,
)
from sidelight.payloads import Column, Schema


def columns(n: int = 200, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    words = rng.choice(["a", "b", "c"], n).astype(object)
    words[::10] = None
    return {
        "x": rng.normal(size=n),
        "k": rng.integers(0, 4, n),
        "word": words,
        "flag": rng.random(n) < 0.3,
        "outputs.y": rng.random(n),
    }


def test_kinds_are_told_from_the_values() -> None:
    reference = Reference.fit(columns())

    kinds = {name: type(column) for name, column in reference.columns.items()}

    assert kinds == {
        "x": NumericReference,
        "k": NumericReference,
        "word": CategoricalReference,
        "flag": CategoricalReference,
        "outputs.y": NumericReference,
    }
    assert reference.outlier_columns == ("x", "k", "word", "flag")


def test_a_schema_decides_the_kind() -> None:
    schema = Schema(
        columns=(
            Column(name="k", kind="categorical"),
            Column(name="word", kind="text"),
            Column(name="x", kind="numeric", role="id"),
            Column(name="y", kind="embedding", role="output"),
        )
    )

    reference = Reference.fit(columns(), schema=schema)

    assert isinstance(reference.columns["k"], CategoricalReference)
    assert set(reference.skipped) == {"word", "x", "outputs.y"}


def test_what_cannot_be_monitored_is_listed_with_its_reason() -> None:
    n = 200
    odd = {
        "missing": np.full(n, np.nan),
        "text": np.array([f"sentence {i}" for i in range(n)], dtype=object),
        "embedding": np.zeros((n, 8)),
    }

    reference = Reference.fit({**columns(n), **odd}, settings=DetectionSettings(max_features=4))

    assert reference.skipped == {
        "missing": "no values in the reference",
        "text": "text columns are not monitored",
        "embedding": "not one value a row",
        "outputs.y": "more than 4 columns",
    }


def test_a_few_words_among_numbers_do_not_make_categories() -> None:
    values = np.arange(200.0).astype(object)
    values[:5] = "n/a"

    reference = Reference.fit({"x": values})

    column = reference.columns["x"]
    assert isinstance(column, NumericReference)
    assert column.counts[0] == 5


def test_constant_columns_are_monitored_but_no_outliers() -> None:
    reference = Reference.fit({"x": np.full(100, 3.0)})

    assert list(reference.columns) == ["x"]
    assert reference.outlier is None


def test_stored_reference_is_the_same() -> None:
    reference = Reference.fit(columns())

    again = Reference.from_bytes(reference.to_bytes())

    assert again.to_bytes() == reference.to_bytes()
    assert again.digest == reference.digest
    assert Reference.fit(columns()).digest == reference.digest
    assert Reference.fit(columns(seed=1)).digest != reference.digest


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param({}, id="no-column"),
        pytest.param({"a": np.zeros(60), "b": np.zeros(61)}, id="two-lengths"),
        pytest.param({"a": np.zeros(10)}, id="too-short"),
    ],
)
def test_unusable_rows_are_refused(bad: dict[str, np.ndarray]) -> None:
    with pytest.raises(SampleError):
        Reference.fit(bad)


def test_bytes_of_something_else_are_refused() -> None:
    with pytest.raises(SnapshotError):
        Reference.from_bytes(b"PK\x03\x04")
