"""What is past its retention goes, what is on hold stays, and a kill in between costs nothing."""

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidelight.adapters import EmbeddedDocuments, Inferences, Lake, LakeFile, Manifest
from sidelight.logger import Document, Signer, verify
from sidelight.logger._checkpoint import Checkpoint, SealedSegment
from sidelight.logger._segments import SegmentWriter
from sidelight.logger.errors import JournalFull
from sidelight.service import _retirement
from sidelight.service._deployments import put_settings
from sidelight.service._gauges import read_gauges
from sidelight.service._holds import Holds
from sidelight.service._settings import Settings
from sidelight.service._settings_access import AuditSettings
from sidelight.service._settings_deployment import DeploymentSettings
from sidelight.service._stage_retention import CONTENTS, RetentionStage

_EPOCH = datetime(2013, 1, 1, tzinfo=UTC)
_MINUTE_NS = 60_000_000_000


def _ns(minutes: float) -> int:
    return int((_EPOCH + timedelta(minutes=minutes)).timestamp()) * 1_000_000_000


class Keeper:
    """The stage over a folder, swept at minutes of its own."""

    def __init__(self, folder: Any, **settings: Any) -> None:
        self.folder = folder
        self.settings = Settings(data=folder.data, **settings)
        self.begin()

    def begin(self) -> None:
        """Make the stage anew, as a restart does."""
        self.stage = RetentionStage(
            self.folder.journals, self.folder.documents, Lake(self.folder.data), self.settings
        )

    def sweep(self, minutes: float) -> None:
        """Run one sweep to its end."""
        for _ in range(10_000):
            if not self.stage.step(_ns(minutes)):
                return
        pytest.fail("the sweep does not come to an end")

    def ids(self) -> set[str]:
        documents = EmbeddedDocuments(self.folder.data)
        inferences = Inferences(self.folder.data, documents)
        try:
            return {item.request_id for item in inferences.find(limit=1000)[0]}
        finally:
            inferences.close()
            documents.close()

    def disk(self) -> set[str]:
        lake = self.folder.data / "lake"
        return {path.relative_to(lake).as_posix() for path in lake.rglob("*.parquet")}

    def visible(self) -> set[str]:
        manifest = Manifest(self.folder.documents)
        return {file.path for table in ("inferences", "scores") for file in manifest.files(table)}


def _keep(folder: Any, name: str, retention: str) -> None:
    settings = DeploymentSettings.model_validate({"name": name, "retention": retention})
    put_settings(folder.documents, settings)


@pytest.fixture
def keeper(folder: Any) -> Keeper:
    """Ten inferences of prod/flights, a minute apart in two files, and one of prod/other."""
    for number in range(10):
        folder.ask([[number, "f"]], request_id=f"r{number}", minutes=number)
        if number == 4:
            folder.work()
    folder.ask([[1, "f"]], request_id="other", deployment="prod/other", minutes=0)
    folder.work()
    return Keeper(folder)


def test_without_retention_nothing_goes(keeper: Keeper) -> None:
    keeper.sweep(10**6)

    assert len(keeper.ids()) == 11


def test_rows_older_than_the_retention_of_their_deployment_go(keeper: Keeper) -> None:
    _keep(keeper.folder, "prod/flights", "24m")

    keeper.sweep(24 + 7)

    assert keeper.ids() == {"other", "r7", "r8", "r9"}
    assert keeper.folder.counter("expired_rows_total", deployment="flights") == 7
    # The files are hidden, and gone once no query can hold them.
    hidden = keeper.disk() - keeper.visible()
    assert len(hidden) == 2
    keeper.sweep(24 + 7 + 2)
    assert not hidden & keeper.disk()
    assert keeper.ids() == {"other", "r9"}


def test_the_retention_of_all_is_for_those_that_say_nothing(folder: Any) -> None:
    folder.ask([[1, "f"]], request_id="a", deployment="prod/a", minutes=0)
    folder.ask([[1, "f"]], request_id="b", deployment="prod/b", minutes=0)
    folder.work()
    _keep(folder, "prod/b", "100m")
    keeper = Keeper(folder, retention="24m")

    keeper.sweep(50)

    assert keeper.ids() == {"b"}


def test_what_is_left_of_a_deleted_deployment_goes_with_the_retention_of_all(folder: Any) -> None:
    folder.ask([[1, "f"]], request_id="a", deployment="prod/a", minutes=0)
    folder.work()
    put_settings(folder.documents, None, name="prod/a")
    keeper = Keeper(folder, retention="24m")

    keeper.sweep(50)

    assert keeper.ids() == set()


def test_done_twice_changes_nothing_more(keeper: Keeper) -> None:
    _keep(keeper.folder, "prod/flights", "24m")
    for _ in range(2):
        keeper.begin()
        keeper.sweep(24 + 7)

        assert keeper.ids() == {"other", "r7", "r8", "r9"}
        assert keeper.folder.counter("expired_rows_total") == 7


@pytest.mark.parametrize("n_steps", range(1, 9))
def test_a_kill_after_any_step_costs_nothing(
    keeper: Keeper, n_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _keep(keeper.folder, "prod/flights", "24m")
    # Each step does one thing.
    monkeypatch.setattr("sidelight.service._stage_retention._SLICE_S", -1.0)
    for _ in range(2):
        keeper.begin()
        for _ in range(n_steps):
            keeper.stage.step(_ns(24 + 7))
        assert keeper.ids() >= {"other", "r7", "r8", "r9"}

    keeper.folder.begin()
    assert keeper.disk() == keeper.visible()
    keeper.begin()
    keeper.sweep(24 + 7)
    assert keeper.ids() == {"other", "r7", "r8", "r9"}
    assert keeper.folder.counter("expired_rows_total") == 7


def test_a_kill_before_the_commit_leaves_what_was_there(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    _keep(keeper.folder, "prod/flights", "24m")

    def full(_: Any) -> None:
        raise JournalFull("state.db")

    with monkeypatch.context() as patch:
        patch.setattr(keeper.folder.journals, "commit", full)
        with pytest.raises(JournalFull):
            keeper.sweep(24 + 7)
    assert len(keeper.ids()) == 11

    keeper.sweep(24 + 8)
    assert keeper.ids() == {"other", "r8", "r9"}
    keeper.sweep(24 + 9)
    assert keeper.folder.counter("retention_failures_total") == 1


def test_a_full_disk_still_lets_go_what_needs_no_room(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    _keep(keeper.folder, "prod/flights", "24m")
    keeper.folder.documents.put([_result("verdicts", 0)])

    def full(*_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("sidelight.adapters._lake.write_file", full)
        keeper.sweep(24 + 7)

    assert keeper.ids() == {"other", "r5", "r6", "r7", "r8", "r9"}
    assert keeper.folder.documents.find("verdicts") == []
    keeper.sweep(24 + 8)
    assert keeper.ids() == {"other", "r8", "r9"}
    assert keeper.folder.counter("retention_failures_total") == 1


def test_what_is_on_hold_stays_until_it_is_released(keeper: Keeper) -> None:
    _keep(keeper.folder, "prod/flights", "24m")
    holds = Holds(keeper.folder.data)
    start_us = _ns(2) // 1000
    hold = holds.add("prod/flights", reason="case", by="x", from_us=start_us, to_us=_ns(4) // 1000)

    keeper.sweep(24 + 7)
    assert keeper.ids() == {"other", "r2", "r3", "r7", "r8", "r9"}
    assert read_gauges(keeper.folder.documents)["legal_holds", ()] == 1
    before = keeper.visible()
    keeper.sweep(24 + 8)
    assert before - keeper.visible()

    holds.release(hold.id, reason="over", by="x")
    keeper.sweep(24 + 9)
    assert keeper.ids() == {"other", "r9"}


def test_a_file_that_is_held_is_not_read_at_each_sweep(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    _keep(keeper.folder, "prod/flights", "24m")
    Holds(keeper.folder.data).add("prod/flights", reason="case", by="x")
    calls: list[str] = []
    expire = Lake.expire

    def counted(lake: Lake, file: LakeFile, **options: Any) -> Any:
        calls.append(file.path)
        return expire(lake, file, **options)

    monkeypatch.setattr(Lake, "expire", counted)

    keeper.sweep(24 + 7)
    first = len(calls)
    keeper.stage._swept_ns = 0
    keeper.sweep(24 + 7)

    assert first == len(calls) == 2
    assert len(keeper.ids()) == 11


def test_holds_that_cannot_be_read_stop_every_deletion(keeper: Keeper) -> None:
    _keep(keeper.folder, "prod/flights", "24m")
    (keeper.folder.data / "access").mkdir(exist_ok=True)
    (keeper.folder.data / "access" / "holds.json").write_text("gone")

    with pytest.raises(Exception, match="nothing is deleted"):
        keeper.sweep(24 + 7)
    assert len(keeper.ids()) == 11


def _result(collection: str, minutes: float, **value: Any) -> Document:
    at = (_EPOCH + timedelta(minutes=minutes)).isoformat()
    return Document(
        collection=collection,
        key=f"{collection}{minutes}",
        deployment="prod/flights",
        order=at,
        value={"time": at, **value},
    )


def _results(folder: Any) -> set[str]:
    names = ("verdicts", "alarms", "labels", "explanations", "replies", "acknowledgements")
    return {key for name in names for _, key, _ in folder.documents.find(name)}


def test_results_go_with_the_rows_and_open_alarms_stay(folder: Any) -> None:
    _keep(folder, "prod/flights", "24m")
    names = ("verdicts", "labels", "explanations", "replies")
    folder.documents.put([_result(name, at) for name in names for at in (0, 9)])
    folder.documents.put(
        [
            _result("alarms", 1, state="ended", ended_at="2013-01-01T00:02:00Z"),
            _result("alarms", 2, state="ended", ended_at="2013-01-01T00:09:00Z"),
            _result("alarms", 3, state="open", ended_at=None),
            Document(collection="acknowledgements", key="alarms1", value={}),
            Document(collection="labels", key="timeless", deployment="prod/flights", value={}),
        ]
    )

    Keeper(folder).sweep(24 + 5)

    expected = {f"{name}9" for name in names} | {"alarms2", "alarms3", "timeless"}
    assert _results(folder) == expected
    assert folder.counter("expired_results_total", kind="labels") == 1


def test_nothing_of_a_deleted_result_is_left_in_the_database(folder: Any) -> None:
    _keep(folder, "prod/flights", "24m")
    secret = "four score and seven"
    old = [_result("explanations", at / 10, text=f"{secret} {at}" * 300) for at in range(40)]
    folder.documents.put([*old, _result("explanations", 9)])

    Keeper(folder).sweep(24 + 5)

    folder.close()
    assert secret.encode() not in b"".join(
        path.read_bytes() for path in folder.data.glob("state.db*")
    )


def test_decoded_rows_that_everybody_has_taken_do_not_wait_for_more(keeper: Keeper) -> None:
    keeper.sweep(1)

    assert keeper.folder.journals.ends("inferences") == {0: 3}
    keeper.folder.close()
    with sqlite3.connect(keeper.folder.data / "state.db") as connection:
        assert connection.execute("SELECT count(*) FROM inferences").fetchone() == (0,)
    connection.close()


def test_results_of_a_deployment_on_hold_stay(folder: Any) -> None:
    _keep(folder, "prod/flights", "24m")
    folder.documents.put([_result("labels", 0)])
    # Labels come later than the inferences that they belong to.
    Holds(folder.data).add("prod/flights", reason="case", by="x", to_us=0)

    Keeper(folder).sweep(24 + 5)

    assert _results(folder) == {"labels0"}


def test_more_results_than_a_page_go(folder: Any) -> None:
    _keep(folder, "prod/flights", "24m")
    folder.documents.put([_result("verdicts", number / 100) for number in range(450)])

    Keeper(folder).sweep(24 + 4)

    assert len(folder.documents.find("verdicts", limit=1000)) == 50


class Archive:
    """A folder whose every record is a segment, received at the minute of its number."""

    def __init__(self, folder: Any, key: Signer) -> None:
        folder.writer.close()
        self.folder = folder
        self.minute = 0.0
        folder.writer = SegmentWriter(
            folder.data, segment_bytes=1, signer=key, clock=lambda: _ns(self.minute)
        )
        self.keeper = Keeper(folder, audit=AuditSettings(raw_retention=1800.0))

    def ask(self, minute: float, **where: Any) -> None:
        self.minute = minute
        self.folder.ask([[1, "f"]], minutes=minute, **where)

    def sweep(self, minutes: float) -> None:
        self.folder.work()
        self.keeper.sweep(minutes)
        _retirement.apply(
            self.folder.data, self.folder.writer, raw_retention_s=1800, now_ns=_ns(minutes)
        )

    def sealed(self) -> tuple[SealedSegment, ...]:
        checkpoint = Checkpoint.load(self.folder.data)
        assert checkpoint is not None
        assert verify(self.folder.data).findings == ()
        return checkpoint.segments

    def retired(self) -> list[int]:
        return [segment.first for segment in self.sealed() if segment.is_retired]

    def overdue(self) -> dict[str, float]:
        return {
            dict(labels)["reason"]: value
            for (name, labels), value in read_gauges(self.folder.documents).items()
            if name == "overdue_segments" and value
        }


@pytest.fixture
def archive(folder: Any) -> Archive:
    return Archive(folder, Signer(Ed25519PrivateKey.generate()))


def test_a_segment_goes_when_every_deployment_in_it_is_past_its_retention(
    archive: Archive,
) -> None:
    _keep(archive.folder, "prod/a", "24m")
    _keep(archive.folder, "prod/b", "100m")
    archive.ask(0, deployment="prod/a")
    archive.ask(1, deployment="prod/b")
    archive.ask(2, deployment="prod/c")
    archive.ask(50, deployment="prod/a")

    archive.sweep(60)
    assert archive.retired() == [0, 1]
    assert archive.overdue() == {"retention": 4}

    archive.sweep(120)
    assert archive.retired() == [0, 1, 2, 3, 6]
    # What has no retention is kept for ever, and says so. The last segment is still written to.
    assert archive.overdue() == {"retention": 2}


def test_nothing_of_the_archive_goes_before_its_own_retention(archive: Archive) -> None:
    _keep(archive.folder, "prod/a", "1m")
    archive.ask(0, deployment="prod/a")
    archive.ask(9, deployment="prod/a")

    archive.sweep(29)
    assert archive.retired() == []
    archive.sweep(31)
    assert archive.retired() == [0, 1]


def test_a_segment_with_anything_on_hold_stays(archive: Archive) -> None:
    _keep(archive.folder, "prod/a", "1m")
    archive.ask(0, deployment="prod/a")
    archive.ask(5, deployment="prod/a")
    archive.ask(9, deployment="prod/a")
    holds = Holds(archive.folder.data)
    hold = holds.add("prod/a", reason="case", by="x", from_us=_ns(5) // 1000, to_us=_ns(6) // 1000)

    archive.sweep(60)
    assert archive.retired() == [0, 1, 4]
    assert archive.overdue() == {"hold": 2}

    holds.release(hold.id, reason="over", by="x")
    archive.sweep(70)
    assert archive.retired() == [0, 1, 2, 3, 4]


def test_a_half_that_still_waits_keeps_its_segment(archive: Archive) -> None:
    _keep(archive.folder, "prod/a", "1m")
    archive.folder.half(
        "request", {"instances": [[1]]}, request_id="w", deployment="prod/a", minutes=0
    )
    archive.ask(0, deployment="prod/a")
    archive.folder.decoding.step(archive.folder.now_ns)
    archive.keeper.sweep(60)

    assert archive.overdue() == {"waiting": 2}


def test_a_changed_segment_is_evidence_and_stays(archive: Archive) -> None:
    _keep(archive.folder, "prod/a", "1m")
    archive.ask(0, deployment="prod/a")
    archive.ask(9, deployment="prod/a")
    archive.folder.work()
    path = next(iter(sorted((archive.folder.data / "raw").glob("*.seg"))))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"X")

    archive.keeper.sweep(60)
    _retirement.apply(
        archive.folder.data, archive.folder.writer, raw_retention_s=1800, now_ns=_ns(60)
    )

    assert path.exists()
    assert archive.overdue() == {"damaged": 1}


def test_what_is_asked_of_the_door_is_not_believed(archive: Archive) -> None:
    _keep(archive.folder, "prod/a", "1m")
    archive.ask(0, deployment="prod/a")
    archive.ask(9, deployment="prod/a")
    archive.folder.work()
    archive.keeper.sweep(60)
    asked = archive.folder.data / "run" / "retire.json"
    wanted = asked.read_bytes()

    def apply(now_minutes: float) -> int:
        asked.write_bytes(wanted)
        return _retirement.apply(
            archive.folder.data,
            archive.folder.writer,
            raw_retention_s=1800,
            now_ns=_ns(now_minutes),
        )

    assert apply(29) == 0
    hold = Holds(archive.folder.data).add("prod/a", reason="case", by="x")
    assert apply(60) == 0
    Holds(archive.folder.data).release(hold.id, reason="over", by="x")
    assert apply(60) == 3
    assert apply(60) == 0
    assert not asked.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'[{"name": 1}]', b"{}", b"null"])
def test_a_request_that_is_none_is_thrown_away(archive: Archive, content: bytes) -> None:
    asked = archive.folder.data / "run" / "retire.json"
    asked.write_bytes(content)

    assert (
        _retirement.apply(
            archive.folder.data, archive.folder.writer, raw_retention_s=1, now_ns=_ns(60)
        )
        == 0
    )
    assert not asked.exists()


def test_what_a_segment_holds_is_read_once(archive: Archive) -> None:
    archive.ask(0, deployment="prod/a")
    archive.ask(1, deployment="prod/a")
    archive.folder.put(
        {
            "ce-specversion": "1.0",
            "ce-id": "f",
            "ce-source": "/x",
            "ce-type": "io.sidelight.feedback",
            "content-type": "application/json",
        },
        b'[{"deployment": "prod/b", "request_id": "r", "labels": {"y": 1}}]',
    )
    archive.ask(2, deployment="prod/a")
    archive.sweep(60)

    found = archive.folder.documents.find(CONTENTS)
    contents = {int(key[:20]): value for _, key, value in found}
    assert set(contents) == {0, 1, 2, 3, 4, 5}
    assert contents[0]["spans"] == {"prod/a": [_ns(0) // 1000, _ns(0) // 1000]}
    assert set(contents[4]["spans"]) == {"prod/b"}
    assert not any(value["has_unknown"] for value in contents.values())


def test_of_what_is_retired_nothing_else_is_kept(archive: Archive) -> None:
    _keep(archive.folder, "prod/a", "1m")
    archive.ask(0, deployment="prod/a")
    archive.ask(1, deployment="prod/a")
    archive.sweep(60)
    archive.sweep(63)

    assert archive.folder.documents.find(CONTENTS) == []
    names = {path.name for path in Path(archive.folder.data / "raw").glob("*.seg")}
    assert len(names) == 1


def test_the_door_looks_at_requests_and_at_the_age_of_its_segment(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    _keep(archive.folder, "prod/a", "1m")
    archive.ask(0, deployment="prod/a")
    archive.ask(9, deployment="prod/a")
    archive.folder.work()
    archive.keeper.sweep(70)
    asked = archive.folder.data / "run" / "retire.json"
    monkeypatch.setattr(_retirement, "_LOOK_S", 0.01)

    async def look() -> None:
        work = _retirement.retire_when_asked(
            archive.folder.data,
            archive.folder.writer,
            raw_retention_s=1800,
            clock=lambda: _ns(9 + 61),
        )
        task = asyncio.create_task(work)
        async with asyncio.timeout(100):
            # Files tell. The last one is sealed by its age.
            while asked.exists() or len(archive.sealed()) < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(look())
    assert archive.retired() == [0, 1, 2]
    # The last one goes with the next sweep.
    archive.sweep(72)
    assert archive.retired() == [0, 1, 2, 3]


def test_what_stayed_of_a_file_goes_when_its_commit_failed(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    _keep(keeper.folder, "prod/flights", "24m")
    with monkeypatch.context() as patch:
        patch.setattr(keeper.folder.journals, "commit", _refused)
        with pytest.raises(JournalFull):
            keeper.sweep(24 + 2)

    keeper.sweep(24 + 3)

    known = keeper.visible() | Manifest(keeper.folder.documents).removed()
    assert len(keeper.disk()) == 4
    assert keeper.disk() <= known


def _refused(_: Any) -> None:
    raise JournalFull("state.db")
