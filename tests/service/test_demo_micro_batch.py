import asyncio

import numpy as np
import pytest
from numpy.typing import NDArray

from sidelight.service.demo._micro_batch import MicroBatch


def test_requests_of_one_moment_are_one_call_and_each_gets_its_own_rows() -> None:
    calls: list[int] = []

    def predict(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        calls.append(len(rows))
        return rows[:, 0] * 2

    async def ask() -> list[NDArray[np.float64]]:
        batch = MicroBatch(predict)
        asked = [np.full((size, 1), float(size)) for size in (1, 3, 2)]
        return await asyncio.gather(*(batch.probability(rows) for rows in asked))

    answers = asyncio.run(ask())

    assert calls == [6]
    assert [answer.tolist() for answer in answers] == [[2.0], [6.0, 6.0, 6.0], [4.0, 4.0]]


def test_a_failure_of_the_model_reaches_everybody_who_waits_and_nobody_after() -> None:
    broken = [True]

    def predict(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        if broken:
            broken.clear()
            raise ValueError("rubbish")
        return rows[:, 0]

    async def ask() -> None:
        batch = MicroBatch(predict)
        waiting = [batch.probability(np.ones((1, 1))) for _ in range(2)]
        failed = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(error) for error in failed] == [ValueError, ValueError]
        assert (await batch.probability(np.ones((1, 1)))).tolist() == [1.0]

    asyncio.run(ask())


def test_a_caller_that_went_away_disturbs_nobody() -> None:
    async def ask() -> list[float]:
        batch = MicroBatch(lambda rows: rows[:, 0])
        gone = asyncio.ensure_future(batch.probability(np.zeros((2, 1))))
        stays = asyncio.ensure_future(batch.probability(np.ones((1, 1))))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        return list(await stays)

    assert asyncio.run(ask()) == [1.0]
