"""The moving part of a deployment's detection, once there is a reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._ahead import N_RANKS, Ahead, Found, Game, Stretch
from sidelight.detectors._alarms import Place, drift_alarm, rate_alarm
from sidelight.detectors._encoding import Encoding
from sidelight.detectors._evidence import Evidence, RateEvidence
from sidelight.detectors._latch import Latch
from sidelight.detectors._look import (
    MAHALANOBIS,
    Answer,
    Look,
    average_answer,
    column_answers,
    drifted_columns,
)
from sidelight.detectors._outlier_rate import OutlierRate
from sidelight.detectors._reference import Reference
from sidelight.detectors._settings import DetectionSettings
from sidelight.detectors._times import Times, joined
from sidelight.detectors._window_tests import Effects
from sidelight.payloads import Alarm


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
    game: Game | None
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
        game = Game.of(deployment, reference, settings) if reference.columns else None
        return cls(
            deployment=deployment,
            reference=reference,
            settings=settings,
            encoding=Encoding(reference),
            game=game,
            cells=np.zeros((settings.window_rows, len(reference.columns)), dtype=np.uint16),
            outliers=np.zeros(settings.window_rows, dtype=np.bool_),
            rows=0,
            times=[],
            evidence=_no_evidence(game),
            rate_evidence=RateEvidence.start(),
            drift_latch=Latch(settings.window_rows),
            rate_latch=Latch(settings.window_rows),
        )

    @property
    def rate(self) -> OutlierRate | None:
        """What share of outliers is allowed; None where they are not watched."""
        return None if self.game is None else self.game.rate

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
            n_looks = self._looks_within(len(cells) - taken)
            if not n_looks:
                self._keep(cells[taken:], outliers[taken:], times[taken:])
                break
            end = taken + self.to_next_look + (n_looks - 1) * self.settings.look_rows
            ahead = None
            found: list[Found] | list[None] = [None] * n_looks
            if self.game is not None:
                stretch = self._stretch(self.game, cells[taken:end], outliers[taken:end])
                ahead = Ahead(self.game, stretch, self.evidence, self.rate_evidence)
                found = ahead.looks()
            for number, each in enumerate(found, start=1):
                end = taken + self.to_next_look
                self._keep(cells[taken:end], outliers[taken:end], times[taken:end])
                taken = end
                look, changed = self._look(each, version)
                looks.append(look)
                alarms += changed
                if ahead is not None and not ahead.goes_on(
                    number, self.evidence, self.rate_evidence
                ):
                    break
        return looks, alarms

    def _looks_within(self, n_rows: int) -> int:
        return (self.rows % self.settings.look_rows + n_rows) // self.settings.look_rows

    def _keep(
        self, cells: NDArray[np.uint16], outliers: NDArray[np.bool_], times: Sequence[str]
    ) -> None:
        place = self.rows % self.settings.window_rows
        self.cells[place : place + len(cells)] = cells
        self.outliers[place : place + len(cells)] = outliers
        self.times.append(times)
        self.rows += len(cells)

    def _stretch(
        self, game: Game, cells: NDArray[np.uint16], outliers: NDArray[np.bool_]
    ) -> Stretch:
        """Put what is in the window of the next look before some rows."""
        begin = self.rows - self.rows % self.settings.look_rows
        first = max(0, begin + self.settings.look_rows - self.settings.window_rows)
        start, end = first % self.settings.window_rows, self.rows % self.settings.window_rows
        # Less than a window: around its end in two parts.
        kept = [slice(start, end)] if start <= end else [slice(start, None), slice(end)]
        return Stretch(
            begin=begin,
            n_before=begin - first,
            places=np.concatenate([*(self.cells[part] for part in kept), cells])
            + game.tests.offsets,
            outliers=np.concatenate([*(self.outliers[part] for part in kept), outliers]),
        )

    def _look(self, found: Found | None, version: str | None) -> tuple[Look, list[Alarm]]:
        """Judge the window, with the rows since the last look added to the evidence."""
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
        if found is not None:
            self.evidence.note(found.evidence, times)
            self._drift(found.effects, at, answers, alarms)
        if self.rate is not None and found is not None and found.rate_evidence is not None:
            self.rate_evidence.rise.take(found.rate_evidence, times)
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
        self, effects: Effects, at: Place, answers: list[Answer], alarms: list[Alarm]
    ) -> None:
        distances = effects.distances()
        drifted = drifted_columns(self.evidence, distances, self.settings)
        columns = self.reference.columns
        answers += column_answers(columns, effects, self.evidence, drifted, self.settings)
        changed = drift_alarm(
            at, self.drift_latch, self.evidence, (distances, drifted), list(columns), self.settings
        )
        answers.append(
            average_answer(
                effects,
                distances,
                self.evidence.average_peak,
                self.settings.drift_threshold,
                is_open=self.drift_latch.is_open,
            )
        )
        alarms += changed
        if changed and changed[-1].state == "ended":
            self.evidence = _no_evidence(self.game)

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


def _no_evidence(game: Game | None) -> Evidence:
    if game is None:
        return Evidence.start(np.zeros((0, N_RANKS + 1), dtype=np.int64))
    return Evidence.start(game.reference_ranks)
