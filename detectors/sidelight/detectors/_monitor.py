"""Detection for one deployment: what the service drives."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._archive import pack, unpack
from sidelight.detectors._collection import Collection
from sidelight.detectors._look import Look
from sidelight.detectors._reference import Reference, fit_collection
from sidelight.detectors._rows import Rows
from sidelight.detectors._settings import DetectionSettings
from sidelight.detectors._state_parts import BASE, HEAD, changed_parts, resume_parts
from sidelight.detectors._watch import Watch
from sidelight.detectors.errors import DetectorError, SnapshotError
from sidelight.payloads import Alarm, Schema, Verdict

_WHAT = "snapshot"
# Rows that are taken at once, and values: of fewer the calls cost more than the work, of more the
# arrays leave the cache.
_TAKEN_ROWS = 4096
_TAKEN_VALUES = 1 << 17
# Columns that appear after the reference are named, but not without bound.
_MAX_LATE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What some rows brought.

    Attributes
    ----------
    looks : tuple of Look
        Every look that fell into these rows, in order.
    alarms : tuple of Alarm
        Alarms that were raised or ended, in order.
    outlier_scores, outlier_p_values : ndarray of float, shape (n_rows,)
        Squared Mahalanobis distance and its conformal p-value; NaN while there is no reference.
    outliers : ndarray of bool, shape (n_rows,)
        Rows whose p-value is at most the level of outliers.
    reference_completed : Reference or None
        The reference, when these rows completed it.

    """

    looks: tuple[Look, ...]
    alarms: tuple[Alarm, ...]
    outlier_scores: NDArray[np.float64]
    outlier_p_values: NDArray[np.float64]
    outliers: NDArray[np.bool_]
    reference_completed: Reference | None

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Answers of all looks, in order."""
        return tuple(verdict for look in self.looks for verdict in look.verdicts())


class DeploymentMonitor:
    """Drift and outliers of one deployment, from its first row on.

    Collects the first ``reference_rows`` rows as reference (or starts with one), then scores every
    row and takes a look every ``look_rows`` rows. An alarm is raised when the evidence of all
    columns together (the average of their martingales, at its peak) reaches
    ``1 / (0.9 * false_alarm_probability)`` and one column shows both evidence and, over a full
    window, an effect of at least ``drift_threshold``. It ends when all effects stayed small for a
    whole window; then the tests start afresh. What is answered depends on the deployment's name,
    the rows and their order alone: not on batches, restarts or time.

    Parameters
    ----------
    deployment : str
        ``namespace/name``.
    settings : DetectionSettings, optional
        Defaults otherwise.
    schema : Schema, optional
        Kinds of columns; those it does not name are told from the reference rows.
    reference : Reference, optional
        Collected from the first rows otherwise.

    """

    def __init__(
        self,
        deployment: str,
        *,
        settings: DetectionSettings | None = None,
        schema: Schema | None = None,
        reference: Reference | None = None,
    ) -> None:
        self._deployment = deployment
        self._settings = settings or DetectionSettings()
        self._schema = schema
        self._late: dict[str, str] = {}
        self._collection = Collection(self._settings.reference_rows)
        self._watch: Watch | None = None
        if reference is not None:
            self._watch = Watch.start(deployment, reference, self._settings)

    @property
    def deployment(self) -> str:
        """``namespace/name``."""
        return self._deployment

    @property
    def settings(self) -> DetectionSettings:
        """The parameters in force."""
        return self._settings

    @property
    def reference(self) -> Reference | None:
        """What rows are compared with; None while it is collected."""
        return None if self._watch is None else self._watch.reference

    @property
    def reference_rows(self) -> int:
        """Rows of the reference so far."""
        return self._collection.rows if self._watch is None else self._watch.reference.rows

    @property
    def rows_seen(self) -> int:
        """Rows taken, those of the reference included."""
        if self._watch is None:
            return self._collection.rows
        return self._watch.reference.rows + self._watch.rows

    @property
    def open_alarms(self) -> tuple[Alarm, ...]:
        """Alarms that were raised and have not ended."""
        if self._watch is None:
            return ()
        alarms = (self._watch.drift_latch.alarm, self._watch.rate_latch.alarm)
        return tuple(alarm for alarm in alarms if alarm is not None)

    @property
    def outlier_rate(self) -> float | None:
        """Share of outliers in the window; None while there is nothing to judge them by."""
        return None if self._watch is None else self._watch.outlier_rate

    @property
    def skipped(self) -> dict[str, str]:
        """Columns that are not monitored, and why."""
        known = self._collection.skipped if self._watch is None else self._watch.reference.skipped
        return {**known, **self._late}

    def update(self, rows: Rows) -> Step:
        """Take rows, in order; return what they brought."""
        taken = 0
        completed = None
        scores = np.full(len(rows), np.nan)
        p_values = np.full(len(rows), np.nan)
        outliers = np.zeros(len(rows), dtype=np.bool_)
        looks: list[Look] = []
        alarms: list[Alarm] = []
        if self._watch is None:
            taken = self._collect(rows)
            if self._watch is not None:
                completed = self.reference
        if self._watch is not None and taken < len(rows):
            self._note_late(self._watch.reference, rows.columns)
        while self._watch is not None and taken < len(rows):
            part = slice(taken, min(taken + _taken_rows(self._watch), len(rows)))
            cells, matrix = self._watch.encoding.encode(rows.columns, part)
            if self._watch.rate is not None and self._watch.reference.outlier is not None:
                found = self._watch.reference.outlier.score(matrix)
                scores[part], p_values[part] = found
                outliers[part] = p_values[part] <= self._watch.rate.level
            said, changed = self._watch.take(cells, outliers[part], rows.times[part], rows.version)
            looks += said
            alarms += changed
            taken = part.stop
        return Step(
            looks=tuple(looks),
            alarms=tuple(alarms),
            outlier_scores=scores,
            outlier_p_values=p_values,
            outliers=outliers,
            reference_completed=completed,
        )

    def _collect(self, rows: Rows) -> int:
        take = min(self._collection.capacity - self._collection.rows, len(rows))
        columns = {name: values[:take] for name, values in rows.columns.items()}
        self._collection.add(columns, take)
        if self._collection.rows == self._collection.capacity:
            reference = fit_collection(self._collection, self._settings, self._schema)
            self._watch = Watch.start(self._deployment, reference, self._settings)
            self._collection = Collection(self._settings.reference_rows)
        return take

    def _note_late(self, reference: Reference, names: Iterable[str]) -> None:
        for name in names:
            known = name in reference.columns or name in reference.skipped
            if not known and len(self._late) < _MAX_LATE:
                self._late[name] = "not in the reference"

    def reference_bytes(self) -> bytes | None:
        """Return the part that never changes once it is there, to be stored once."""
        return None if self._watch is None else self._watch.reference.to_bytes()

    def snapshot(self) -> bytes:
        """Return the moving part; with ``reference_bytes`` all that ``restore`` needs."""
        head = self._base() | {"late": self._late}
        part = self._collection if self._watch is None else self._watch
        head["state"], arrays = part.to_parts()
        return pack(head, arrays)

    def _base(self) -> dict[str, Any]:
        return {
            "deployment": self._deployment,
            "settings": self._settings.to_json(),
            "schema": None if self._schema is None else self._schema.to_json(),
            "reference": None if self._watch is None else self._watch.reference.digest,
        }

    def changed_parts(self, since: int | None = None) -> dict[str, bytes]:
        """Return the same as ``snapshot`` in parts, without those that did not change.

        Parameters
        ----------
        since : int or None
            ``rows_seen`` when parts were last returned; None for all of them.

        Returns
        -------
        dict of str to bytes
            By names of ``STATE_PARTS``. A part that is not among them stays what it was.

        """
        if self._watch is None:
            return self._packed_base() | {HEAD: self._packed_head(*self._collection.to_parts())}
        head = {HEAD: self._packed_head(*self._watch.head_parts())}
        before = None if since is None else since - self._watch.reference.rows
        if before is None or before < 0:
            return self._packed_base() | head | changed_parts(self._watch, None)
        return head | changed_parts(self._watch, before)

    def _packed_base(self) -> dict[str, bytes]:
        return {BASE: pack(self._base(), {})}

    def _packed_head(self, head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
        return pack({"late": self._late, "state": head}, arrays)

    @classmethod
    def restore(cls, snapshot: bytes, reference: bytes | None = None) -> "DeploymentMonitor":
        """Continue from a snapshot as if nothing had happened.

        Parameters
        ----------
        snapshot : bytes
            From ``snapshot``.
        reference : bytes or None
            From ``reference_bytes``, of any time since the reference was complete.

        Raises
        ------
        SnapshotError
            If the bytes are damaged, of another version, or do not belong together.

        """
        head, arrays = unpack(snapshot, _WHAT)
        return cls._restored(head, head, arrays, reference)

    @classmethod
    def restore_parts(
        cls, parts: Mapping[str, bytes], reference: bytes | None = None
    ) -> "DeploymentMonitor":
        """Continue from the last form of each part that ``changed_parts`` returned.

        Raises
        ------
        SnapshotError
            As ``restore``; also when a part is missing.

        """
        base, _ = unpack(parts.get(BASE, b""), BASE)
        head, arrays = unpack(parts.get(HEAD, b""), HEAD)
        return cls._restored(base, head, arrays, reference, parts)

    @classmethod
    def _restored(
        cls,
        base: Mapping[str, Any],
        head: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any]],
        reference: bytes | None,
        parts: Mapping[str, bytes] | None = None,
    ) -> "DeploymentMonitor":
        try:
            schema = None if base["schema"] is None else Schema.from_json(base["schema"])
            settings = DetectionSettings.from_json(base["settings"])
            monitor = cls(base["deployment"], settings=settings, schema=schema)
            monitor._late = dict(head["late"])
            if base["reference"] is None:
                monitor._collection = Collection.from_parts(head["state"], arrays)
                return monitor
            found = _belonging(reference, base["reference"])
            monitor._watch = watch = Watch.start(base["deployment"], found, settings)
            if parts is None:
                watch.resume(head["state"], arrays)
            else:
                resume_parts(watch, head["state"], arrays, parts)
        except SnapshotError:
            raise
        except (KeyError, TypeError, ValueError, DetectorError) as error:
            raise SnapshotError(_WHAT, expected="its parts", got=repr(error)) from error
        return monitor


def _belonging(reference: bytes | None, digest: str) -> Reference:
    found = None if reference is None else Reference.from_bytes(reference)
    if found is None or found.digest != digest:
        got = "none" if found is None else found.digest
        raise SnapshotError("reference", expected=f"digest {digest}", got=got)
    return found


def _taken_rows(watch: Watch) -> int:
    return max(1, min(_TAKEN_ROWS, _TAKEN_VALUES // max(1, len(watch.reference.columns))))
