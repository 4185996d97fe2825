"""The moving part of a deployment's detection, once there is a reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._alarms import Place, drift_alarm, rate_alarm
from sidelight.detectors._encoding import Encoding
from sidelight.detectors._evidence import Evidence, RateEvidence
from sidelight.detectors._latch import Latch
from sidelight.detectors._look import (
    AVERAGE_EVIDENCE,
    MAHALANOBIS,
    Answer,
    Look,
    column_answers,
    drifted_columns,
)
from sidelight.detectors._outlier_rate import OutlierRate
from sidelight.detectors._reference import Reference
from sidelight.detectors._settings import (
    OUTLIER_CALIBRATION_SHARE,
    DetectionSettings,
)
from sidelight.detectors._times import Times, joined
from sidelight.detectors._uniforms import seed_of, uniforms
from sidelight.detectors._window_tests import Effects, WindowTests
from sidelight.payloads import Alarm

# Ranks of the bag; a Jumper's bets are smooth, so finer ranks add nothing but state.
_N_RANKS = 64
# Rows that are played at once: of more the arrays leave the cache.
_PLAYED_ROWS = 1000


@dataclass(slots=True)
class Watch:
    """Windows, martingales and alarms of one deployment against one reference.

    Rows are only put into the window as they come. Everything else happens at looks, on the
    ``look_rows`` rows since the last one: so no answer can depend on how rows were batched.
    """

    deployment: str
    reference: Reference
    settings: DetectionSettings
    encoding: Encoding
    rate: OutlierRate | None
    tests: WindowTests | None
    ranks: NDArray[np.uint8]
    reference_ranks: NDArray[np.int64]
    seeds: NDArray[np.uint64]
    cells: NDArray[np.uint16]
    outliers: NDArray[np.bool_]
    rows: int
    times: list[Sequence[str]]
    evidence: Evidence
    rate_evidence: RateEvidence
    drift_latch: Latch
    rate_latch: Latch

    @classmethod
    def start(cls, deployment: str, reference: Reference, settings: DetectionSettings) -> "Watch":
        """Begin after the reference."""
        columns = reference.columns
        maps = [column.ranks(_N_RANKS) for column in columns.values()]
        ranks = np.zeros((len(columns), _N_RANKS + 1), dtype=np.int64)
        for index, column in enumerate(columns.values()):
            # Float sums of counts are exact far beyond any window.
            sums = np.bincount(maps[index], weights=column.counts).astype(np.int64)
            ranks[index, : sums.size] = sums
        tests = WindowTests(columns, settings) if columns else None
        flat = np.zeros(0 if tests is None else tests.n_cells, dtype=np.uint8)
        if tests is not None:
            for offset, mapped in zip(tests.offsets.tolist(), maps, strict=True):
                flat[offset : offset + mapped.size] = mapped
        return cls(
            deployment=deployment,
            reference=reference,
            settings=settings,
            encoding=Encoding(reference),
            rate=_rate(reference, settings),
            tests=tests,
            ranks=flat,
            reference_ranks=ranks,
            seeds=np.array([seed_of(deployment, name) for name in columns], dtype=np.uint64),
            cells=np.zeros((settings.window_rows, len(columns)), dtype=np.uint16),
            outliers=np.zeros(settings.window_rows, dtype=np.bool_),
            rows=0,
            times=[],
            evidence=Evidence.start(ranks),
            rate_evidence=RateEvidence.start(),
            drift_latch=Latch(settings.window_rows),
            rate_latch=Latch(settings.window_rows),
        )

    @property
    def to_next_look(self) -> int:
        """Rows until the next look."""
        return self.settings.look_rows - self.rows % self.settings.look_rows

    @property
    def outlier_rate(self) -> float | None:
        """Share of outliers among the rows of the window; None before the first row."""
        if self.rate is None or not self.rows:
            return None
        return self._share_of_outliers()

    def _share_of_outliers(self) -> float:
        # As the mean is, in a fifth of the time: whole numbers have one sum.
        filled = min(self.rows, self.settings.window_rows)
        return int(np.count_nonzero(self.outliers[:filled])) / filled

    def take(
        self,
        cells: NDArray[np.uint16],
        outliers: NDArray[np.bool_],
        times: Sequence[str],
        version: str | None,
    ) -> tuple[list[Look], list[Alarm]]:
        """Take rows, in order; return the looks that fell into them, and alarms that changed."""
        looks: list[Look] = []
        alarms: list[Alarm] = []
        taken = 0
        while taken < len(cells):
            n_looks = min(self._looks_within(len(cells) - taken), self._most_looks())
            if not n_looks:
                self._keep(cells[taken:], outliers[taken:], times[taken:])
                break
            end = taken + self.to_next_look + (n_looks - 1) * self.settings.look_rows
            played = self._play(cells[taken:end], outliers[taken:end])
            for number in range(n_looks):
                end = taken + self.to_next_look
                self._keep(cells[taken:end], outliers[taken:end], times[taken:end])
                taken = end
                look, changed = self._look(number, *played, version)
                looks.append(look)
                alarms += changed
        return looks, alarms

    def _looks_within(self, n_rows: int) -> int:
        return (self.rows % self.settings.look_rows + n_rows) // self.settings.look_rows

    def _most_looks(self) -> int:
        """Return how many looks are played at once: evidence begins anew after the last one only.

        It does when an alarm ends, which takes a whole window without effect.
        """
        if self.drift_latch.is_open or self.rate_latch.is_open:
            return 1
        most = max(1, _PLAYED_ROWS // self.settings.look_rows)
        return min(most, 1 + self.settings.window_rows // self.settings.look_rows)

    def _keep(
        self, cells: NDArray[np.uint16], outliers: NDArray[np.bool_], times: Sequence[str]
    ) -> None:
        place = self.rows % self.settings.window_rows
        self.cells[place : place + len(cells)] = cells
        self.outliers[place : place + len(cells)] = outliers
        self.times.append(times)
        self.rows += len(cells)

    def _play(
        self, cells: NDArray[np.uint16], outliers: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Play the rows since the last look and these; return the evidence after each."""
        waiting = self.rows % self.settings.look_rows
        place = self.rows % self.settings.window_rows
        before = slice(place - waiting, place)
        if waiting:
            cells = np.concatenate([self.cells[before], cells])
            outliers = np.concatenate([self.outliers[before], outliers])
        if self.tests is None:
            return np.zeros((len(cells), 0)), np.zeros((len(cells), 0))
        ranks = self.ranks.take(cells + self.tests.offsets)
        u = uniforms(self.seeds, self.rows - waiting, len(cells))
        if self.rate is None:
            return self.evidence.play(ranks, u), np.zeros((len(cells), 0))
        return self.evidence.play_beside(
            ranks, u, self.rate_evidence.capital, self.rate.factors(outliers)
        )

    def _look(
        self,
        number: int,
        evidence: NDArray[np.float64],
        rate_evidence: NDArray[np.float64],
        version: str | None,
    ) -> tuple[Look, list[Alarm]]:
        """Judge the window, with the rows since the last look added to the evidence."""
        block = slice(number * self.settings.look_rows, (number + 1) * self.settings.look_rows)
        times = joined(self.times)
        self.times = []
        at = Place(
            deployment=self.deployment,
            version=version,
            time=times[-1],
            rows=self.reference.rows + self.rows,
            row=self.rows,
            # Part of a day is no window: real streams go up and down, and only a whole window is
            # comparable with the reference.
            window_is_full=self.rows >= self.settings.window_rows,
        )
        answers: list[Answer] = []
        alarms: list[Alarm] = []
        if self.tests is not None:
            self.evidence.note(evidence[block], times)
            self._drift(self.tests, at, answers, alarms)
        if self.rate is not None:
            self.rate_evidence.note(rate_evidence[block], times)
            self._outlier_rate(self.rate, at, answers, alarms)
        look = Look(
            deployment=self.deployment,
            version=version,
            time=at.time,
            rows=at.rows,
            answers=tuple(answers),
        )
        return look, alarms

    def _drift(
        self, tests: WindowTests, at: Place, answers: list[Answer], alarms: list[Alarm]
    ) -> None:
        effects = tests.compare(self.cells[: min(self.rows, self.settings.window_rows)])
        distances = effects.distances()
        drifted = drifted_columns(self.evidence, distances, self.settings)
        columns = self.reference.columns
        answers += column_answers(columns, effects, self.evidence, drifted, self.settings)
        changed = drift_alarm(
            at, self.drift_latch, self.evidence, (distances, drifted), list(columns), self.settings
        )
        answers.append(self._average(effects, distances))
        alarms += changed
        if changed and changed[-1].state == "ended":
            self.evidence = Evidence.start(self.reference_ranks)

    def _average(self, effects: Effects, distances: NDArray[np.float64]) -> Answer:
        threshold = self.settings.drift_threshold
        if not effects.sufficient:
            reason = effects.shift[0].reason
            return Answer(
                AVERAGE_EVIDENCE, None, "insufficient", None, None, None, threshold, reason
            )
        return Answer(
            AVERAGE_EVIDENCE,
            None,
            "drift" if self.drift_latch.is_open else "ok",
            float(distances.max()),
            None,
            self.evidence.average_peak,
            threshold,
            "",
        )

    def _outlier_rate(
        self, rate: OutlierRate, at: Place, answers: list[Answer], alarms: list[Alarm]
    ) -> None:
        share = self._share_of_outliers()
        excess = max(0.0, share - rate.level)
        threshold = rate.allowed - rate.level + self.settings.outlier_rate_effect
        effect = excess, threshold
        changed = rate_alarm(at, self.rate_latch, self.rate_evidence, effect, self.settings)
        alarms += changed
        answers.append(
            Answer(
                MAHALANOBIS,
                None,
                "drift" if self.rate_latch.is_open else "ok",
                excess,
                None,
                self.rate_evidence.peak,
                threshold,
                f"{share:.2%} of the rows of the window are outliers",
            )
        )
        if changed and changed[-1].state == "ended":
            self.rate_evidence = RateEvidence.start()

    def head_parts(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what every row changes, beside the window."""
        times = joined(self.times) if self.times else []
        if isinstance(times, Times):
            return {"rows": self.rows}, {"times": times.microseconds}
        return {"rows": self.rows, "times": list(times)}, {}

    def evidence_parts(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what looks change."""
        evidence, arrays = self.evidence.to_parts()
        rate, rate_arrays = self.rate_evidence.to_parts()
        head = {
            "evidence": evidence,
            "rate": rate,
            "drift_latch": self.drift_latch.to_json(),
            "rate_latch": self.rate_latch.to_json(),
        }
        return head, arrays | {f"rate.{name}": array for name, array in rate_arrays.items()}

    def to_parts(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what a snapshot keeps: nothing that follows from the reference."""
        filled = min(self.rows, self.settings.window_rows)
        head, arrays = self.evidence_parts()
        own_head, own_arrays = self.head_parts()
        window = {"cells": self.cells[:filled], "outliers": self.outliers[:filled]}
        return head | own_head, arrays | own_arrays | window

    def resume(self, head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Continue from what ``to_parts`` returned."""
        self.rows = head["rows"]
        times = Times(arrays["times"]) if "times" in arrays else head["times"]
        self.times = [times] if len(times) else []
        self.evidence = Evidence.from_parts(head["evidence"], arrays)
        rate = {name[5:]: array for name, array in arrays.items() if name.startswith("rate.")}
        self.rate_evidence = RateEvidence.from_parts(head["rate"], rate)
        self.drift_latch = Latch.from_json(head["drift_latch"])
        self.rate_latch = Latch.from_json(head["rate_latch"])
        if "cells" in arrays:
            self.cells[: len(arrays["cells"])] = arrays["cells"]
            self.outliers[: len(arrays["outliers"])] = arrays["outliers"]


def _rate(reference: Reference, settings: DetectionSettings) -> OutlierRate | None:
    if reference.outlier is None:
        return None
    return OutlierRate(
        n_calibration=reference.outlier.held_out.size,
        p_value=settings.outlier_p_value,
        calibration_risk=settings.false_alarm_probability * OUTLIER_CALIBRATION_SHARE,
    )
