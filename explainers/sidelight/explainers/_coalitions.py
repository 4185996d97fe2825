"""Coalitions of Kernel SHAP: strata by size, in pairs with their complements, none twice."""

from dataclasses import dataclass, field
from itertools import combinations, islice
from math import comb

import numpy as np
from numpy.typing import NDArray

# Strata up to this many pairs are shuffled whole; larger ones are drawn, and repeats dropped.
_SHUFFLED_PAIRS = 1 << 16

Masks = NDArray[np.bool_]


@dataclass(slots=True)
class Stratum:
    """All pairs of a coalition of one size with its complement, handed out in random order.

    Parameters
    ----------
    n_players, size : int
        Coalitions of ``size`` players and their complements; ``1 <= size <= n_players / 2``.
    rng : numpy.random.Generator
        Of the order; nobody else draws from it.

    """

    n_players: int
    size: int
    rng: np.random.Generator
    _handed_out: int = 0
    _shuffled: Masks | None = None
    _seen: set[bytes] = field(default_factory=set)

    @property
    def n_pairs(self) -> int:
        """Pairs there are in all."""
        n_coalitions = comb(self.n_players, self.size)
        return n_coalitions // 2 if 2 * self.size == self.n_players else n_coalitions

    @property
    def n_left(self) -> int:
        """Pairs not handed out yet."""
        return self.n_pairs - self._handed_out

    @property
    def weight(self) -> float:
        """Shapley kernel weight of all its coalitions together, up to a common factor.

        One coalition weighs ``(M - 1) / (C(M, s) s (M - s))`` (Lundberg and Lee 2017, theorem 2).
        """
        sides = 1 if 2 * self.size == self.n_players else 2
        return sides * (self.n_players - 1) / (self.size * (self.n_players - self.size))

    def take(self, n_pairs: int) -> Masks:
        """Hand out the next pairs, shape (n_pairs, n_players): one coalition of each pair."""
        n_pairs = min(n_pairs, self.n_left)
        if self.n_pairs <= _SHUFFLED_PAIRS:
            masks = self._all()[self._handed_out : self._handed_out + n_pairs]
        else:
            masks = self._draw(n_pairs)
        self._handed_out += len(masks)
        return masks

    def _all(self) -> Masks:
        if self._shuffled is None:
            members = np.array(
                list(islice(combinations(range(self.n_players), self.size), self.n_pairs)), int
            )
            masks = np.zeros((self.n_pairs, self.n_players), dtype=np.bool_)
            np.put_along_axis(masks, members, values=True, axis=1)
            self._shuffled = self.rng.permutation(masks)
        return self._shuffled

    def _draw(self, n_pairs: int) -> Masks:
        # Of a middle size, the half with player 0 stands for the pair, as in ``_all``.
        halves = 2 * self.size == self.n_players
        masks = np.zeros((n_pairs, self.n_players), dtype=np.bool_)
        filled = 0
        while filled < n_pairs:
            mask = np.zeros(self.n_players, dtype=np.bool_)
            mask[self.rng.permutation(self.n_players)[: self.size]] = True
            if halves and not mask[0]:
                mask = ~mask
            name = mask.tobytes()
            if name not in self._seen:
                self._seen.add(name)
                masks[filled] = mask
                filled += 1
        return masks


def strata(n_players: int, seed: np.random.SeedSequence) -> list[Stratum]:
    """All strata of a game, smallest coalitions first; each draws from its own stream."""
    sizes = range(1, n_players // 2 + 1)
    return [
        Stratum(n_players=n_players, size=size, rng=np.random.default_rng(child))
        for size, child in zip(sizes, seed.spawn(len(sizes)), strict=True)
    ]


def allotted(layers: list[Stratum], taken: list[int], n_pairs: int) -> list[int]:
    """Share the next pairs among strata so that all taken so far follow the kernel weights.

    A stratum whose share covers all its pairs is taken whole, and the rest is shared among the
    others, so that small and large coalitions come completely first, as in ``shap``.
    """
    open_layers = {index for index, layer in enumerate(layers) if layer.n_left}
    share = [float(count) for count in taken]
    left = float(sum(taken[index] for index in open_layers) + n_pairs)
    while open_layers:
        weight = sum(layers[index].weight for index in open_layers)
        portion = {index: left * layers[index].weight / weight for index in open_layers}
        full = [index for index in open_layers if portion[index] >= layers[index].n_pairs]
        for index in full or open_layers:
            share[index] = min(portion[index], float(layers[index].n_pairs))
        if not full:
            break
        left -= sum(share[index] for index in full)
        open_layers.difference_update(full)
    wanted = [max(0.0, goal - count) for goal, count in zip(share, taken, strict=True)]
    scale = n_pairs / sum(wanted) if sum(wanted) > 0 else 0.0
    most = [layer.n_left for layer in layers]
    return _rounded([want * scale for want in wanted], n_pairs, most)


def _rounded(wanted: list[float], total: int, most: list[int]) -> list[int]:
    counts = [min(int(want), bound) for want, bound in zip(wanted, most, strict=True)]
    rest = total - sum(counts)
    by_fraction = sorted(range(len(wanted)), key=lambda i: counts[i] - wanted[i])
    for index in by_fraction:
        if rest <= 0:
            break
        extra = min(1, most[index] - counts[index], rest)
        counts[index] += extra
        rest -= extra
    return counts
