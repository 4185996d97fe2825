"""The third stage: the same answers whatever fails beside it, and nothing seen twice."""

from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sidelight.adapters import Lake, LakeError, Manifest, _lake_rows
from sidelight.adapters._erasure import unnamed_files
from sidelight.adapters._lake_writing import write_file
from sidelight.detectors import DeploymentMonitor, Rows
from sidelight.logger import Commit
from sidelight.logger.errors import JournalError
from sidelight.service import _columns
from sidelight.service._deployments import put_settings
from sidelight.service._detection_results import verdicts_of
from sidelight.service._detection_state import (
    forgetting_state,
    replacing_state,
    stored_watched,
)
from sidelight.service._gauges import read_gauges
from sidelight.service._settings_deployment import read_deployment


def _configure(folder: Any, name: str = "prod/flights", **settings: Any) -> None:
    settings.setdefault("reference", {"first_rows": 100})
    settings.setdefault("detection", {"window_rows": 250})
    put_settings(folder.documents, read_deployment(name, settings))


def _traffic(folder: Any, n_rows: int, *, seed: int = 0, shift: float = 0.0, **where: Any) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(n_rows // 10):
        rows = [[float(rng.normal() + shift), str(rng.choice(["f", "m"]))] for _ in range(10)]
        folder.ask(rows, **where)


def _gauge(folder: Any, name: str, deployment: str = "flights") -> float | None:
    found = [
        value
        for (key, labels), value in read_gauges(folder.documents).items()
        if key == name and dict(labels)["deployment"] == deployment
    ]
    return found[0] if found else None


def _alarms(folder: Any) -> list[dict[str, Any]]:
    return [value for _, _, value in folder.documents.find("alarms")]


def _fail_on(monkeypatch: pytest.MonkeyPatch, deployment: str, when: Any) -> None:
    update = DeploymentMonitor.update

    def failing(self: DeploymentMonitor, rows: Rows) -> Any:
        if self.deployment == deployment and when(rows):
            update(self, rows)
            raise IndexError("a bug, after half of the work")
        return update(self, rows)

    monkeypatch.setattr(DeploymentMonitor, "update", failing)


def test_shift_raises_one_alarm_that_names_the_feature_first(folder: Any) -> None:
    _configure(folder)
    _traffic(folder, 350)
    folder.work()
    assert _alarms(folder) == []

    _traffic(folder, 600, seed=1, shift=3.0)
    folder.work()

    (alarm,) = [alarm for alarm in _alarms(folder) if alarm["kind"] == "drift"]
    assert alarm["state"] == "open"
    assert alarm["features"][0]["name"] in {"age", "outputs.late"}
    assert folder.counter("drift_alarms_total", kind="drift") == 1
    assert folder.counter("detector_rows_total") == 950


@pytest.mark.parametrize("broken", [b"", b"{", b"\xff\xfe"])
def test_what_nobody_understood_is_no_row_of_the_reference(make_folder: Any, broken: bytes) -> None:
    found = []
    for strays in (False, True):
        folder = make_folder()
        _configure(folder)
        rng = np.random.default_rng(3)
        for number in range(120):
            if strays and number % 40 == 0:
                folder.half("request", broken, request_id=f"stray{number}", minutes=number)
                folder.half("response", broken, request_id=f"stray{number}", minutes=number)
            # Columns that nobody names are called as that of a body which nobody understood.
            asked = {"instances": [[float(rng.normal()), float(rng.normal())]]}
            folder.half("request", asked, request_id=f"r{number}", minutes=number)
            folder.half("response", {"predictions": [0.5]}, request_id=f"r{number}", minutes=number)
        folder.work()
        found.append(folder.documents.get("references", "prod/flights"))

    assert found[0]["complete"]
    assert found[0] == found[1]


def test_answers_to_text_are_judged(folder: Any) -> None:
    _configure(folder, reference={"first_rows": 50})
    for number in range(60):
        folder.half("request", b"how do you do", request_id=f"r{number}", minutes=number)
        answer = {"predictions": [number % 3]}
        folder.half("response", answer, request_id=f"r{number}", minutes=number)
    folder.work()

    assert folder.documents.get("references", "prod/flights")["complete"]
    assert folder.counter("detector_rows_total") == 60


def test_outlier_rate_is_published_once_there_is_something_to_judge_by(folder: Any) -> None:
    _configure(folder)
    _traffic(folder, 50)
    folder.work()
    assert _gauge(folder, "outlier_rate") is None

    _traffic(folder, 300, seed=1)
    folder.work()
    quiet = _gauge(folder, "outlier_rate")
    _traffic(folder, 250, seed=2, shift=50.0)
    folder.work()

    assert quiet is not None
    assert quiet < 0.2
    assert _gauge(folder, "outlier_rate") == 1.0
    assert _gauge(folder, "reference_rows") == 100


def test_a_restart_in_the_middle_changes_no_answer(make_folder: Any) -> None:
    answers = []
    for restarts in (False, True):
        folder = make_folder()
        _configure(folder)
        for part in range(12):
            _traffic(folder, 100, seed=part, shift=2.0 if part > 6 else 0.0)
            folder.work()
            if restarts:
                folder.begin()
        looks = folder.documents.find("verdicts", limit=1000)
        answers.append((looks, _alarms(folder), folder.counter("outlier_rows_total")))

    assert answers[0] == answers[1]
    assert answers[0][1]


def _store_as_before(folder: Any, name: str) -> None:
    """Put a whole snapshot in the place of the parts, as former versions stored it."""
    watched = stored_watched(folder.journals, name)
    assert watched is not None
    state = forgetting_state(folder.journals, name)
    state |= {
        key: value
        for key, value in replacing_state(folder.journals, name, watched).items()
        if key.startswith((b"token|", b"reference|", b"rows|"))
    }
    state[f"monitor|{name}".encode()] = watched.monitor.snapshot()
    positions = folder.journals.positions("detection", "inferences")
    commit = Commit(group="detection", journal="inferences", positions=positions, state=state)
    folder.journals.commit(commit)


def test_state_of_former_versions_is_read_and_replaced(make_folder: Any) -> None:
    answers = []
    for before in (None, 1, 5):
        folder = make_folder()
        _configure(folder)
        for part in range(9):
            _traffic(folder, 70, seed=part, shift=2.0 if part > 5 else 0.0)
            folder.work()
            if part == before:
                _store_as_before(folder, "prod/flights")
                folder.begin()
        looks = folder.documents.find("verdicts", limit=1000)
        answers.append((looks, _alarms(folder), folder.counter("outlier_rows_total")))
        assert not folder.journals.state("detection", [b"monitor|prod/flights"])
        assert folder.journals.state("detection", [b"base|prod/flights"])

    assert answers[0][0]
    assert answers[0] == answers[1] == answers[2]


def _unnamed(folder: Any) -> list[str]:
    manifest = Manifest(folder.documents)
    tables: tuple[Literal["inferences", "scores"], ...] = ("inferences", "scores")
    named = {file.entry for table in tables for file in manifest.files(table)}
    return unnamed_files(Lake(folder.data), named | manifest.removed())


def test_commits_that_fail_are_done_again_with_the_same_answers(
    make_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = []
    for fails in (False, True):
        folder = make_folder()
        _configure(folder)
        commit, tried = folder.journals.commit, {"n": 0}

        def unsure(made: Commit, commit: Any = commit, tried: Any = tried) -> None:
            if made.group == "detection":
                tried["n"] += 1
                if tried["n"] % 3:
                    raise JournalError("the disk is full")
            commit(made)

        for part in range(9):
            _traffic(folder, 70, seed=part, shift=2.0 if part > 5 else 0.0)
            with monkeypatch.context() as patch:
                if fails:
                    patch.setattr(folder.journals, "commit", unsure)
                for _ in range(4 if fails else 1):
                    try:
                        folder.work()
                    except JournalError:
                        folder.detection.reset()
        answers.append(
            (
                folder.documents.find("verdicts", limit=1000),
                _alarms(folder),
                folder.counter("outlier_rows_total"),
                folder.counter("detector_rows_total"),
                _gauge(folder, "outlier_rate"),
            )
        )
        assert tried["n"] >= (9 if fails else 0)
    assert answers[0] == answers[1]
    assert answers[0][0]


def test_scores_of_a_commit_that_failed_are_not_left_over(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Commit) -> None:
        raise JournalError("the disk is full")

    _configure(folder)
    _traffic(folder, 200, seed=1)
    folder.work()
    _traffic(folder, 20, seed=2)
    folder.decoding.step(folder.now_ns + 10**9)
    with monkeypatch.context() as patch:
        patch.setattr(folder.journals, "commit", full)
        with pytest.raises(JournalError):
            folder.detection.step(folder.now_ns + 10**9)
    folder.detection.reset()
    # More has come before it is tried again: the file has another name.
    _traffic(folder, 20, seed=3)
    folder.decoding.step(folder.now_ns + 3 * 10**9)
    folder.work()

    assert folder.counter("detector_rows_total") == 240
    assert _unnamed(folder) == []


@pytest.mark.parametrize("n_unnamed", [0, 1])
def test_scores_stay_while_a_kill_could_show_that_their_commit_happened(
    folder: Any, monkeypatch: pytest.MonkeyPatch, n_unnamed: int
) -> None:
    commit = folder.journals.commit

    def failing(made: Commit) -> None:
        if not n_unnamed:
            commit(made)
        raise JournalError("an I/O error")

    _configure(folder)
    _traffic(folder, 200, seed=1)
    folder.work()
    _traffic(folder, 20, seed=2)
    folder.decoding.step(folder.now_ns + 10**9)
    with monkeypatch.context() as patch:
        patch.setattr(folder.journals, "commit", failing)
        with pytest.raises(JournalError):
            folder.detection.step(folder.now_ns + 10**9)
    assert len(_unnamed(folder)) == n_unnamed
    folder.detection.reset()
    _traffic(folder, 20, seed=3)
    folder.decoding.step(folder.now_ns + 3 * 10**9)
    folder.work()

    assert _unnamed(folder) == []
    files = Manifest(folder.documents).files("scores")
    assert all((folder.data / "lake" / file.path).exists() for file in files)
    assert sum(file.rows for file in files) == 240
    assert folder.counter("detector_rows_total") == 240


def test_scores_that_are_staged_in_half_are_not_left_over(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [3]

    def failing(path: Path, *arguments: Any, **options: Any) -> int:
        if "scores" in str(path) and "prod%2Fb" in str(path) and left[0]:
            left[0] -= 1
            raise OSError(28, "No space left on device")
        return write_file(path, *arguments, **options)

    for name in ("prod/a", "prod/b"):
        _configure(folder, name)
        _traffic(folder, 150, deployment=name)
    folder.work()
    monkeypatch.setattr(_lake_rows, "write_file", failing)
    for number in range(4):
        for name in ("prod/a", "prod/b"):
            _traffic(folder, 10, seed=number, deployment=name)
        with suppress(LakeError):
            folder.work()
        folder.detection.reset()
        assert _unnamed(folder) == []

    folder.work()
    assert left == [0]
    assert folder.counter("detector_rows_total") == 2 * (150 + 40)


def test_new_settings_leave_nothing_of_the_former_state(folder: Any) -> None:
    _configure(folder, detection={"window_rows": 250})
    _traffic(folder, 500)
    folder.work()
    assert dict(folder.journals.scan("detection", b"window"))

    _configure(folder, reference={"first_rows": 200}, detection={"window_rows": 250})
    folder.begin()
    _traffic(folder, 10)
    folder.work()

    assert not dict(folder.journals.scan("detection", b"window"))
    assert not dict(folder.journals.scan("detection", b"reference|"))
    folder.begin()
    _traffic(folder, 10)
    folder.work()
    assert folder.documents.get("references", "prod/flights")["rows"] == 20


def test_settings_that_cannot_be_met_and_are_taken_back_lose_nothing(
    folder: Any, tmp_path: Path
) -> None:
    _configure(folder)
    _traffic(folder, 200)
    folder.work()
    _configure(folder, reference={"file": str(tmp_path / "missing.parquet")})
    folder.begin()
    _traffic(folder, 30)
    folder.work()
    _configure(folder)

    for _ in range(2):
        _traffic(folder, 30)
        folder.work()
        folder.begin()

    watched = stored_watched(folder.journals, "prod/flights")
    assert watched is not None
    assert watched.monitor.rows_seen == 260
    assert folder.counter("detector_errors_total") == 0


def test_documents_are_written_when_they_change(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    commit = folder.journals.commit

    def noting(made: Commit) -> None:
        if made.group == "detection":
            written.extend(document.collection for document in made.documents)
        commit(made)

    monkeypatch.setattr(folder.journals, "commit", noting)
    _configure(folder)
    for part in range(6):
        _traffic(folder, 50, seed=part)
        folder.work()
        if part < 5:
            written.clear()

    assert "references" not in written
    assert _gauge(folder, "reference_rows") == 100
    folder.begin()
    _traffic(folder, 10)
    folder.work()
    assert "references" in written


def test_a_monitor_that_always_fails_costs_other_deployments_nothing(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail_on(monkeypatch, "prod/bad", lambda _: True)
    for name in ("prod/flights", "prod/bad"):
        _configure(folder, name)
        _traffic(folder, 100, deployment=name)

    folder.work()
    _traffic(folder, 20, deployment="prod/flights")
    folder.work()

    assert folder.counter("detector_rows_total", deployment="flights") == 120
    assert folder.counter("detector_rows_total", deployment="bad") == 0
    assert folder.counter("detector_errors_total", deployment="bad") >= 1
    assert folder.counter("detector_errors_total", deployment="flights") == 0
    assert folder.counter("inferences_total", deployment="bad") == 10
    ends = folder.journals.ends("inferences")
    assert folder.journals.positions("detection", "inferences") == ends


def test_a_batch_that_fails_is_left_out_as_if_it_had_never_come(
    make_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = []
    for is_bad in (False, True):
        folder = make_folder()
        _configure(folder)
        for part in range(20):
            _traffic(folder, 60, seed=part, shift=2.0 if part > 10 else 0.0)
            folder.work()
            if part == 7:
                where = "prod/flights" if is_bad else "prod/other"
                folder.ask([[1e9, "poison"]], deployment=where)
                with monkeypatch.context() as patch:
                    _fail_on(patch, "prod/flights", lambda rows: "poison" in rows.columns["sex"])
                    folder.work()
        answers.append(
            (
                folder.documents.find("verdicts", limit=1000),
                _alarms(folder),
                folder.counter("detector_rows_total", deployment="flights"),
                folder.counter("outlier_rows_total"),
            )
        )
        assert folder.counter("detector_errors_total") == float(is_bad)

    assert answers[0] == answers[1]
    assert answers[0][1]


def test_state_that_cannot_be_restored_is_counted_and_blocks_nobody(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("prod/flights", "prod/bad"):
        _traffic(folder, 20, deployment=name)
    folder.work()
    folder.begin()
    restore = DeploymentMonitor.restore_parts

    def failing(parts: dict[str, bytes], reference: bytes | None = None) -> Any:
        monitor = restore(parts, reference)
        if monitor.deployment == "prod/bad":
            raise EOFError
        return monitor

    monkeypatch.setattr(DeploymentMonitor, "restore_parts", failing)
    for name in ("prod/flights", "prod/bad"):
        _traffic(folder, 20, deployment=name)
    folder.work()

    assert folder.counter("detector_rows_total", deployment="flights") == 40
    assert folder.counter("detector_errors_total", deployment="bad") >= 1


def test_detection_that_is_disabled_looks_at_nothing(folder: Any) -> None:
    _configure(folder, detection={"enabled": False})
    _traffic(folder, 100)

    folder.work()

    assert folder.counter("inferences_total") == 10
    assert folder.counter("detector_rows_total") == 0
    assert folder.documents.get("references", "prod/flights") is None


def test_synthetic_rows_and_lone_responses_are_not_judged(make_folder: Any) -> None:
    folder = make_folder(orphan_after_s=9.0)
    folder.ask([[1.0, "f"]], request_id="explain-abc-0")
    folder.half("response", {"predictions": [1]}, request_id="lone")
    folder.ask([[2.0, "f"]])
    folder.work()
    folder.now_ns += 10**18
    folder.work()

    assert folder.counter("detector_rows_total") == 1
    assert folder.counter("inferences_total") == 1
    assert folder.documents.get("deployments", "prod/flights")["rows_seen"] == 2


def test_reference_file_is_there_before_the_first_row(folder: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "reference.parquet"
    rows = {"age": rng.normal(size=200), "sex": rng.choice(["f", "m"], 200)}
    pq.write_table(pa.table(rows), path)
    _configure(folder, reference={"file": str(path)})

    _traffic(folder, 500, seed=1, shift=4.0)
    folder.work()

    shown = folder.documents.get("references", "prod/flights")
    assert (shown["rows"], shown["complete"]) == (200, True)
    assert (folder.data / "references" / f"{shown['digest']}.parquet").exists()
    assert [alarm["kind"] for alarm in _alarms(folder)]


def test_missing_reference_file_is_read_when_it_comes(folder: Any, tmp_path: Path) -> None:
    path = tmp_path / "late.parquet"
    _configure(folder, reference={"file": str(path)})
    _traffic(folder, 20)
    folder.work()
    assert folder.documents.get("references", "prod/flights") is None
    assert folder.counter("inferences_total") == 2

    pq.write_table(pa.table({"age": np.arange(100.0), "sex": ["f", "m"] * 50}), path)
    folder.now_ns += 60 * 10**9
    _traffic(folder, 20)
    folder.work()

    assert folder.documents.get("references", "prod/flights")["rows"] == 100


def test_registered_schema_decides_what_is_categorical(folder: Any) -> None:
    columns = [
        {"name": "age", "kind": "categorical", "role": "feature", "categories": None},
        {"name": "sex", "kind": "categorical", "role": "feature", "categories": None},
    ]
    _configure(folder, schema={"columns": columns})
    rng = np.random.default_rng(0)
    for _ in range(40):
        folder.ask([[float(rng.integers(0, 3)), "f"] for _ in range(10)])
    folder.work()

    looks = [verdicts_of(value) for _, _, value in folder.documents.find("verdicts")]
    detectors = {v["detector"] for look in looks for v in look if v["feature"] == "age"}
    assert "chi_square" in detectors
    assert "kolmogorov_smirnov" not in detectors


def test_alarm_ends_with_the_tests_that_raised_it(folder: Any) -> None:
    _configure(folder, reference={"first_rows": 100}, detection={"window_rows": 250})
    _traffic(folder, 100)
    _traffic(folder, 500, seed=1, shift=3.0)
    folder.work()
    assert {alarm["state"] for alarm in _alarms(folder)} == {"open"}

    _configure(folder, reference={"first_rows": 200}, detection={"window_rows": 250})
    folder.begin()
    _traffic(folder, 10, seed=2)
    folder.work()

    assert {alarm["state"] for alarm in _alarms(folder)} == {"ended"}
    assert all(alarm["ended_at"] > alarm["raised_at"] for alarm in _alarms(folder))
    assert _gauge(folder, "drift_alarm") == 0


def test_nulls_of_single_rows_leave_them_in_order(make_folder: Any) -> None:
    looks = []
    for together in (37, 400):
        folder = make_folder()
        _configure(folder, reference={"first_rows": 100})
        for number in range(400):
            row = {"a": None if number % 3 else float(number), "b": "x"}
            asked = {"request_id": f"r{number}", "minutes": float(number)}
            folder.half("request", {"instances": [row]}, **asked)
            folder.half("response", {"predictions": [number % 7]}, **asked)
            if not number % together:
                folder.work()
        folder.work()
        looks.append([value for _, _, value in folder.documents.find("verdicts")])

    assert looks[0] == looks[1]
    assert looks[0]


def test_a_step_that_is_judged_in_parts_gives_the_same_answers(
    make_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = []
    for most_cells in (1 << 22, 40):
        monkeypatch.setattr(_columns, "_MOST_CELLS", most_cells)
        folder = make_folder()
        _configure(folder)
        _traffic(folder, 400)
        folder.ask([[float(n % 7), "f"] for n in range(300)])
        _traffic(folder, 600, seed=1, shift=4.0)
        folder.work()
        documents = {
            name: folder.documents.find(name) for name in ("alarms", "verdicts", "references")
        }
        # A row of the reference has no score, whether or not it stands there.
        scores = [
            row
            for path in sorted((folder.data / "lake" / "scores").rglob("*.parquet"))
            for row in pq.read_table(path).to_pylist()
            if row["p_value"] is not None
        ]
        judged.append((documents, scores, read_gauges(folder.documents)))

    assert all(judged[0][0].values())
    assert len(judged[0][1]) == 1200
    assert judged[0] == judged[1]
