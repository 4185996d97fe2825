"""Capital of betting strategies that share their winnings: the engine of the martingales."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Rows between two scalings. A factor is below 2**7 (see `_outlier_rate`), so 64 rows stay
# far within the range of float64.
_SCALE_EVERY = 64
# Scale of the first rows of a stream; after `_REST_ROWS * e**k` rows 1 / (1 + k) is still at rest.
_REST_ROWS = 100.0
_LOG10_2 = math.log10(2)


@dataclass(slots=True)
class Capital:
    """Capital of several gamblers, each divided among the same strategies.

    Strategy 0 rests: it never bets. Each row, every other strategy multiplies its capital by its
    factor, and puts the share ``jump_rate`` of it into a pool that all strategies divide. The
    resting strategy gives its capital to the others ever more slowly: after ``t`` rows
    ``1 / (1 + ln(1 + t / 100))`` of the start is still there. So the total starts at one, is a
    martingale whenever the factors have mean one given the past, and after a year without
    change a change still finds capital to grow from (with a constant rate it would be gone
    exponentially: 14 decades after 5,000 rows).

    The numbers do not depend on how rows are cut into calls: each row is the same few operations
    on arrays of one shape, and scalings by powers of two are exact.

    Parameters
    ----------
    n_gamblers, n_strategies : int
        Shape of the bets; strategies count the resting one.
    jump_rate : float, default 0.01
        Share of a betting strategy's capital that goes to the pool each row, in [0, 1).

    """

    amounts: NDArray[np.float64]
    exponents: NDArray[np.int64]
    age: int
    jump_rate: float

    @classmethod
    def start(cls, n_gamblers: int, n_strategies: int, *, jump_rate: float = 0.01) -> "Capital":
        """Put all capital, one for each gambler, at rest."""
        amounts = np.zeros((n_strategies, n_gamblers))
        amounts[0] = 1.0
        return cls(amounts, np.zeros(n_gamblers, dtype=np.int64), 0, jump_rate)

    def update(self, factors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Play rows of factors, shape (n_rows, n_strategies, n_gamblers), C-contiguous.

        They are overwritten: by the capital of each strategy after each row.

        Returns
        -------
        ndarray of float, shape (n_rows, n_gamblers)
            Decimal logarithm of each gambler's capital after each row.

        """
        decades = np.empty((len(factors), factors.shape[2]))
        moves = self._moves(len(factors))
        done = 0
        while done < len(factors):
            end = min(done + _SCALE_EVERY - self.age % _SCALE_EVERY, len(factors))
            decades[done:end] = self.exponents * _LOG10_2
            self._play(moves[done:end], factors[done:end])
            done = end
            if self.age % _SCALE_EVERY == 0:
                self._scale()
        # Strategy after strategy: the order in which a sum over this axis adds up.
        total = factors[:, 0] + factors[:, 1]
        for strategy in range(2, factors.shape[1]):
            total += factors[:, strategy]
        np.log10(total, out=total)
        # Each gambler's rows side by side, as looks read them.
        result = np.empty(total.shape[::-1]).T
        return np.add(total, decades, out=result)

    def log10(self) -> NDArray[np.float64]:
        """Decimal logarithm of each gambler's capital, shape (n_gamblers,)."""
        total = self.amounts.sum(axis=0)
        return np.asarray(np.log10(total) + self.exponents * _LOG10_2, dtype=np.float64)

    def _play(self, moves: NDArray[np.float64], factors: NDArray[np.float64]) -> None:
        amounts, moved = self.amounts, np.empty_like(self.amounts)
        # The one loop over rows: two calls, a fourth of what a row costs. The method is the
        # same product as `np.dot`, without looking for other implementations first.
        multiply = np.multiply
        for move, factor in zip(moves, factors, strict=True):
            move.dot(amounts, moved)
            amounts = multiply(moved, factor, factor)
        self.amounts = amounts.copy()
        self.age += len(factors)

    def _moves(self, n_rows: int) -> NDArray[np.float64]:
        """Matrices that move capital between strategies before each of the next rows."""
        n = len(self.amounts)
        ages = np.arange(self.age, self.age + n_rows + 1, dtype=np.float64)
        resting = 1 / (1 + np.log1p(ages / _REST_ROWS))
        leak = 1 - resting[1:] / resting[:-1]
        moves = np.empty((n_rows, n, n))
        moves[:] = self.jump_rate / n
        moves[:, np.arange(1, n), np.arange(1, n)] += 1 - self.jump_rate
        moves[:, 1:, 0] = leak[:, np.newaxis] / (n - 1)
        moves[:, 0, 0] = 1 - leak
        return moves

    def _scale(self) -> None:
        _, exponents = np.frexp(self.amounts.sum(axis=0))
        self.amounts = np.ldexp(self.amounts, -exponents)
        self.exponents = self.exponents + exponents


def play_together(
    first: Capital, second: Capital, factors: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what ``update`` of both returns, from one loop where they are of one age.

    A row costs the same for one gambler as for twenty.

    Parameters
    ----------
    factors : ndarray of float, shape (n_rows, n_strategies, n_gamblers of both)
        The gamblers of the first before those of the second. Overwritten.

    """
    n = first.exponents.size
    if first.age != second.age or first.jump_rate != second.jump_rate:
        return (
            first.update(np.ascontiguousarray(factors[:, :, :n])),
            second.update(np.ascontiguousarray(factors[:, :, n:])),
        )
    joint = Capital(
        np.concatenate([first.amounts, second.amounts], axis=1),
        np.concatenate([first.exponents, second.exponents]),
        first.age,
        first.jump_rate,
    )
    result = joint.update(factors)
    for part, chosen in ((first, slice(None, n)), (second, slice(n, None))):
        part.amounts = np.ascontiguousarray(joint.amounts[:, chosen])
        part.exponents = joint.exponents[chosen].copy()
        part.age = joint.age
    return result[:, :n], result[:, n:]
