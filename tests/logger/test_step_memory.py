"""What a step may bring into memory: bounded by whoever makes it, counted by whoever inflates."""

import gzip

import pytest

from sidelight.logger import InflateError, StepTooLarge, gunzip, spend, step_memory

BODY = gzip.compress(bytes(1000))


def test_nothing_is_bounded_outside_of_a_step() -> None:
    spend(1 << 60)


def test_inflating_in_a_step_that_can_be_smaller_asks_for_less() -> None:
    with step_memory(2500):
        gunzip(BODY, max_bytes=1000)
        gunzip(BODY, max_bytes=1000)
        with pytest.raises(StepTooLarge):
            gunzip(BODY, max_bytes=1000)


def test_inflating_in_a_step_that_cannot_be_smaller_has_the_bound_of_each_body_alone() -> None:
    with step_memory(1500), step_memory(None):
        gunzip(BODY, max_bytes=1000)
        assert len(gunzip(BODY, max_bytes=1000)) == 1000
        with pytest.raises(InflateError):
            gunzip(BODY, max_bytes=999)
