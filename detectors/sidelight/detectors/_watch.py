"""The moving part of a deployment's detection, once there is a reference."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._evidence import Evidence, RateEvidence
from sidelight.detectors._latch import Latch, alarm_id
from sidelight.detectors._look import (
    AVERAGE_EVIDENCE,
    MAHALANOBIS,
    Effects,
    Look,
    add_up,
    column_verdicts,
    compare_window,
    drifted_columns,
    needed_log10,
    shares_of,
)
from sidelight.detectors._outlier_rate import OutlierRate
from sidelight.detectors._reference import Reference
from sidelight.detectors._settings import (
    OUTLIER_CALIBRATION_SHARE,
    OUTLIER_RATE_SHARE,
    DetectionSettings,
)
from sidelight.detectors._uniforms import seed_of, uniforms
from sidelight.payloads import Alarm, Verdict

# Ranks of the bag; a Jumper's bets are smooth, so finer ranks add nothing but state.
_N_RANKS = 64


@dataclass(slots=True)
class Watch:
    """Windows, martingales and alarms of one deployment against one reference.

    Rows are only put into the window as they come. Everything else happens at looks, on the
    ``look_rows`` rows since the last one: so no answer can depend on how rows were batched.
    """

    deployment: str
    reference: Reference
    settings: DetectionSettings
    rate: OutlierRate | None
    rank_maps: list[NDArray[np.int64]]
    reference_ranks: NDArray[np.int64]
    seeds: NDArray[np.uint64]
    cells: NDArray[np.uint16]
    outliers: NDArray[np.bool_]
    rows: int
    times: list[str]
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
            sums = add_up(maps[index], column.counts)
            ranks[index, : sums.size] = sums
        return cls(
            deployment=deployment,
            reference=reference,
            settings=settings,
            rate=_rate(reference, settings),
            rank_maps=maps,
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
        return float(self.outliers[: min(self.rows, self.settings.window_rows)].mean())

    @property
    def _window_is_full(self) -> bool:
        # Part of a day is no window: real streams go up and down, and only a whole window is
        # comparable with the reference.
        return self.rows >= self.settings.window_rows

    def take(
        self, cells: NDArray[np.uint16], outliers: NDArray[np.bool_], times: Sequence[str]
    ) -> None:
        """Put rows into the window; no more than there are until the next look."""
        place = self.rows % self.settings.window_rows
        self.cells[place : place + len(times)] = cells
        self.outliers[place : place + len(times)] = outliers
        self.times.extend(times)
        self.rows += len(times)

    def look(self, version: str | None) -> tuple[list[Verdict], list[Alarm]]:
        """Judge the window, with the rows since the last look added to the evidence."""
        look = Look(
            deployment=self.deployment,
            version=version,
            time=self.times[-1],
            rows=self.reference.rows + self.rows,
        )
        verdicts: list[Verdict] = []
        alarms: list[Alarm] = []
        if self.reference.columns:
            self._drift(look, verdicts, alarms)
        self._outlier_rate(look, verdicts, alarms)
        self.times = []
        return verdicts, alarms

    def _block(self) -> slice:
        end = (self.rows - 1) % self.settings.window_rows + 1
        return slice(end - self.settings.look_rows, end)

    def _drift(self, look: Look, verdicts: list[Verdict], alarms: list[Alarm]) -> None:
        block = self.cells[self._block()]
        ranks = np.stack([m[block[:, i]] for i, m in enumerate(self.rank_maps)], axis=1)
        u = uniforms(self.seeds, self.rows - len(block), len(block))
        self.evidence.update(ranks, u, self.times)
        filled = min(self.rows, self.settings.window_rows)
        columns = self.reference.columns
        effects = compare_window(columns, self.cells[:filled], self.settings)
        verdicts += column_verdicts(look, columns, effects, self.evidence, self.settings)
        alarms += self._drift_alarm(look, effects)
        verdicts.append(self._average(look, effects))
        if alarms and alarms[-1].state == "ended":
            self.evidence = Evidence.start(self.reference_ranks)

    def _average(self, look: Look, effects: Effects) -> Verdict:
        threshold = self.settings.drift_threshold
        if not effects.sufficient:
            reason = next(item.reason for item in effects.shift.values())
            return look.verdict(
                AVERAGE_EVIDENCE,
                None,
                state="insufficient",
                distance=None,
                threshold=threshold,
                reason=reason,
            )
        return look.verdict(
            AVERAGE_EVIDENCE,
            None,
            state="drift" if self.drift_latch.is_open else "ok",
            distance=float(effects.distances().max()),
            threshold=threshold,
            log10_evidence=self.evidence.average_peak,
        )

    def _drift_alarm(self, look: Look, effects: Effects) -> list[Alarm]:
        distances = effects.distances()
        if self.drift_latch.is_open:
            limit = self.settings.end_fraction * self.settings.drift_threshold
            quiet = bool((distances < limit).all())
            ended = self.drift_latch.look(quiet=quiet, row=self.rows, time=look.time)
            return [] if ended is None else [ended]
        drifted = drifted_columns(self.evidence, distances, self.settings)
        if (
            not self._window_is_full
            or self.evidence.average_peak < needed_log10(self.settings)
            or not drifted.any()
        ):
            return []
        names = list(self.reference.columns)
        shares = shares_of(names, self.evidence, distances, drifted)
        alarm = Alarm(
            id=alarm_id(self.deployment, AVERAGE_EVIDENCE, look.rows),
            deployment=self.deployment,
            version=look.version,
            kind="drift",
            detector=AVERAGE_EVIDENCE,
            state="open",
            since=self.evidence.rise.since[names.index(shares[0].name)],
            raised_at=look.time,
            raised_at_row=look.rows,
            ended_at=None,
            features=shares,
            log10_evidence=self.evidence.average_peak,
        )
        return [self.drift_latch.open(alarm)]

    def _outlier_rate(self, look: Look, verdicts: list[Verdict], alarms: list[Alarm]) -> None:
        if self.rate is None:
            return
        block = self.outliers[self._block()]
        self.rate_evidence.update(self.rate, block, self.times)
        share = float(self.outliers[: min(self.rows, self.settings.window_rows)].mean())
        excess = max(0.0, share - self.rate.level)
        threshold = self.rate.allowed - self.rate.level + self.settings.outlier_rate_effect
        alarms += self._rate_alarm(look, excess, threshold)
        verdicts.append(
            look.verdict(
                MAHALANOBIS,
                None,
                state="drift" if self.rate_latch.is_open else "ok",
                distance=excess,
                threshold=threshold,
                log10_evidence=self.rate_evidence.peak,
                reason=f"{share:.2%} of the rows of the window are outliers",
            )
        )
        if alarms and alarms[-1].state == "ended" and alarms[-1].kind == "outlier_rate":
            self.rate_evidence = RateEvidence.start()

    def _rate_alarm(self, look: Look, excess: float, threshold: float) -> list[Alarm]:
        if self.rate_latch.is_open:
            quiet = excess < self.settings.end_fraction * threshold
            ended = self.rate_latch.look(quiet=quiet, row=self.rows, time=look.time)
            return [] if ended is None else [ended]
        probability = self.settings.false_alarm_probability * OUTLIER_RATE_SHARE
        if self.rate_evidence.peak < -math.log10(probability) or excess < threshold:
            return []
        if not self._window_is_full:
            return []
        alarm = Alarm(
            id=alarm_id(self.deployment, MAHALANOBIS, look.rows),
            deployment=self.deployment,
            version=look.version,
            kind="outlier_rate",
            detector=MAHALANOBIS,
            state="open",
            since=self.rate_evidence.rise.since[0],
            raised_at=look.time,
            raised_at_row=look.rows,
            ended_at=None,
            features=(),
            log10_evidence=self.rate_evidence.peak,
        )
        return [self.rate_latch.open(alarm)]

    def to_parts(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what a snapshot keeps: nothing that follows from the reference."""
        filled = min(self.rows, self.settings.window_rows)
        evidence, arrays = self.evidence.to_parts()
        rate, rate_arrays = self.rate_evidence.to_parts()
        head = {
            "rows": self.rows,
            "times": self.times,
            "evidence": evidence,
            "rate": rate,
            "drift_latch": self.drift_latch.to_json(),
            "rate_latch": self.rate_latch.to_json(),
        }
        arrays |= {f"rate.{name}": array for name, array in rate_arrays.items()}
        arrays["cells"] = self.cells[:filled]
        arrays["outliers"] = self.outliers[:filled]
        return head, arrays

    def resume(self, head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Continue from what ``to_parts`` returned."""
        self.rows = head["rows"]
        self.times = list(head["times"])
        self.evidence = Evidence.from_parts(head["evidence"], arrays)
        rate = {name[5:]: array for name, array in arrays.items() if name.startswith("rate.")}
        self.rate_evidence = RateEvidence.from_parts(head["rate"], rate)
        self.drift_latch = Latch.from_json(head["drift_latch"])
        self.rate_latch = Latch.from_json(head["rate_latch"])
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
