"""What was ordered to be erased is nowhere any more, whatever happened in between."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sidelight.adapters import Decoder, Inferences, Lake, LakeError
from sidelight.adapters._lake_remote import Copies
from sidelight.logger import Commit, Document, EventLimits, verify
from sidelight.logger._checkpoint import Checkpoint
from sidelight.logger._sealed_verify import verify_sealed
from sidelight.logger._sealing import SealingJournal, SealingSettings
from sidelight.logger.errors import JournalFull
from sidelight.payloads import RawRef
from sidelight.service import _stage_erasing, _stage_forgetting
from sidelight.service._deployments import put_settings
from sidelight.service._erasure_finding import row_values
from sidelight.service._erasure_orders import COLLECTION, ErasureAnswer, ErasureOrder, ErasureOrders
from sidelight.service._holds import Holds
from sidelight.service._query_source import FolderSource
from sidelight.service._segment_contents import SegmentContents
from sidelight.service._segment_scan import scanned
from sidelight.service._settings import Settings
from sidelight.service._settings_access import AuditSettings, AuthSettings
from sidelight.service._settings_deployment import DeploymentSettings
from sidelight.service._stage import INDEXING, REFERENCE_ERASURES, Stage
from sidelight.service._stage_detection import DetectionStage
from sidelight.service._stage_erasing import ErasingStage
from sidelight.service._stage_forgetting import ForgettingStage
from sidelight.service._tokens import Tokens
from sidelight.service.errors import Gone

_NAME = "prod/flights"
_MARKER = "marker-of-the-subject"
_STEPS = 2000


class _SealedWriter:
    """The archive's writer behind a sealing journal, as the folder of the tests uses it."""

    def __init__(self, data: Path, writer: Any) -> None:
        self._writer = writer
        self.journal = SealingJournal(
            data, writer, SealingSettings(deployments=("prod/*",)), position=writer.end
        )

    def write(self, head: bytes, body: bytes) -> "Future[int]":
        return self.journal.write(head, body)

    def close(self) -> None:
        self.journal.close()
        self._writer.close()


class Eraser:
    """The stage over a folder, with orders from the outside."""

    def __init__(self, folder: Any, **settings: Any) -> None:
        self.folder = folder
        self.settings = Settings(data=folder.data, **settings)
        self.orders = ErasureOrders(folder.data)
        self.begin()

    @classmethod
    def over(cls, folder: Any) -> "Eraser":
        """Return one beside the stages that are there."""
        begin, folder.begin = folder.begin, lambda: None
        eraser = cls(folder)
        folder.begin = begin
        return eraser

    def begin(self) -> None:
        """Make all stages anew, as a restart does."""
        self.folder.begin()
        self.stage = ErasingStage(
            self.folder.journals,
            self.folder.documents,
            Lake(self.folder.data),
            self.settings,
            self.folder.stages,
            self._append,
        )

    def _append(self, head: bytes, body: bytes) -> None:
        self.folder.writer.write(head, body).result(100)

    def order(self, **what: Any) -> ErasureAnswer:
        """Order an erasure, and let everybody work until it is answered."""
        order = ErasureOrder(**{"deployment": _NAME, "by": "me", "reason": "asked", **what})
        self.orders.ask(order)
        return self.answer(order.id)

    def answer(self, order_id: str) -> ErasureAnswer:
        for _ in range(_STEPS):
            self.folder.now_ns += 100_000_000
            for stage in (*self.folder.stages, self.stage):
                stage.step(self.folder.now_ns)
            if (answer := self.orders.answer(order_id)) is not None:
                return answer
        pytest.fail(f"the order is not answered: {self.stage.failure}")

    def ids(self) -> set[str]:
        inferences = Inferences(self.folder.data, self.folder.documents)
        try:
            return {item.request_id for item in inferences.find(limit=1000)[0]}
        finally:
            inferences.close()

    def files_with(self, text: str) -> list[str]:
        """Return the files of the data folder in which a text stands."""
        return [
            path.relative_to(self.folder.data).as_posix()
            for path in sorted(self.folder.data.rglob("*"))
            if path.is_file() and text.encode() in path.read_bytes()
        ]


@pytest.fixture
def eraser(folder: Any) -> Eraser:
    """Seven inferences of a sealed deployment; those of two are the subject's."""
    folder.writer = _SealedWriter(folder.data, folder.writer)
    folder.door._writer = folder.writer
    _ask(folder)
    return Eraser(folder)


def _ask(folder: Any) -> None:
    for number in range(7):
        who = _MARKER if number in {2, 5} else f"somebody-{number}"
        folder.ask([[number, who]], request_id=f"r{number}", minutes=number, names=("age", "who"))
    folder.work()


def _collects(folder: Any, rows: int) -> None:
    value = {"name": _NAME, "reference": {"first_rows": rows}}
    put_settings(folder.documents, DeploymentSettings.model_validate(value))


def _detecting(folder: Any) -> tuple[Stage, Stage]:
    """Return the stages of a new process that detects."""
    detection = DetectionStage(folder.journals, folder.documents, Lake(folder.data), folder.data)
    return ForgettingStage(folder.journals, folder.documents, folder.data, detection), detection


def _by_marker(**more: Any) -> dict[str, Any]:
    return {"where": f"features.who = '{_MARKER}'", **more}


def test_nothing_of_the_subject_is_left_in_any_file(eraser: Eraser) -> None:
    documents = eraser.folder.documents
    labels = {"deployment": _NAME, "request_id": "r2", "row": 0, "labels": {"said": _MARKER}}
    documents.put(
        [
            Document(
                collection="labels",
                key=f"{_NAME}|r2|0",
                deployment=_NAME,
                order="t",
                value={**labels, "time": "2013-01-01T00:00:00Z"},
            )
        ]
    )
    before = eraser.files_with(_MARKER)
    answer = eraser.order(**_by_marker())

    assert any(name.startswith("lake/") for name in before)
    assert (answer.state, answer.inferences, answer.rows, answer.plain) == ("done", 2, 2, ())
    assert answer.keys == 4
    assert eraser.files_with(_MARKER) == []
    assert eraser.ids() == {"r0", "r1", "r3", "r4", "r6"}
    eraser.folder.writer.close()
    # The door signs, the writer of these tests does not.
    assert [
        finding for finding in verify(eraser.folder.data).findings if "sign" not in finding
    ] == []
    report = verify_sealed(eraser.folder.data)
    assert (report.findings, report.sealed, report.erased) == ((), 14, 4)


def test_dry_run_finds_and_changes_nothing(eraser: Eraser) -> None:
    answer = eraser.order(**_by_marker(dry_run=True))

    assert (answer.state, answer.inferences, answer.rows) == ("found", 2, 2)
    assert len(eraser.ids()) == 7
    assert eraser.files_with(_MARKER)
    assert not eraser.folder.documents.find(COLLECTION)


def test_others_and_their_answers_stay_as_they_were(eraser: Eraser) -> None:
    inferences = Inferences(eraser.folder.data, eraser.folder.documents)
    before = {item.request_id: item.to_json() for item in inferences.find()[0]}
    eraser.order(**_by_marker())
    after = {item.request_id: item.to_json() for item in inferences.find()[0]}

    assert after == {name: of for name, of in before.items() if name not in {"r2", "r5"}}
    inferences.close()


def test_order_by_ids_takes_all_of_a_request_and_says_what_is_unknown(eraser: Eraser) -> None:
    inferences = Inferences(eraser.folder.data, eraser.folder.documents)
    found = {item.request_id: item.id for item in inferences.find()[0]}
    inferences.close()
    answer = eraser.order(ids=(found["r1"], "0" * 32))

    assert (answer.inferences, answer.unknown) == (1, 1)
    assert "r1" not in eraser.ids()
    assert eraser.order(ids=(found["r1"],)).inferences == 0


def test_order_by_request_destroys_what_the_lake_does_not_have_any_more(eraser: Eraser) -> None:
    answer = eraser.order(request_ids=("r3",))

    assert (answer.inferences, answer.keys) == (1, 2)
    again = eraser.order(request_ids=("r3",))
    assert (again.state, again.inferences, again.keys) == ("done", 0, 0)
    assert verify_sealed(eraser.folder.data).erased == 2


@pytest.mark.parametrize(
    ("subject", "gone"),
    [
        (f"who={_MARKER}", {"r2", "r5"}),
        ("age=3", {"r3"}),
        ("features.age = 3.0", {"r3"}),
        ("request_id=r1", {"r1"}),
        ("outputs.late=4", {"r4"}),
    ],
)
def test_subject_is_found_whether_the_column_holds_texts_or_numbers(
    eraser: Eraser, subject: str, gone: set[str]
) -> None:
    eraser.order(subject=subject)

    assert {f"r{number}" for number in range(7)} - eraser.ids() == gone


def test_subject_of_an_unknown_column_is_refused(eraser: Eraser) -> None:
    assert eraser.order(subject="nobody=1").state == "refused"


def test_hold_refuses_and_is_named(eraser: Eraser) -> None:
    hold = Holds(eraser.folder.data).add(_NAME, reason="case 17", by="court")
    answer = eraser.order(**_by_marker())

    assert answer.state == "held"
    assert hold.id in answer.detail
    assert "case 17" in answer.detail
    assert len(eraser.ids()) == 7
    Holds(eraser.folder.data).release(hold.id, reason="over", by="court")
    assert eraser.order(**_by_marker()).state == "done"


def test_hold_on_other_times_does_not_refuse(eraser: Eraser) -> None:
    Holds(eraser.folder.data).add(_NAME, reason="case 17", by="court", to_us=0)

    assert eraser.order(**_by_marker()).state == "done"


def test_wrong_expression_is_refused_with_its_reason(eraser: Eraser) -> None:
    answer = eraser.order(where="features.nobody = 1")

    assert answer.state == "refused"
    assert "features.nobody" in answer.detail


def test_half_that_waits_is_erased_with_the_others(eraser: Eraser) -> None:
    folder = eraser.folder
    inputs = [{"name": "who", "shape": [1], "datatype": "BYTES", "data": [_MARKER]}]
    folder.half("request", {"inputs": inputs}, request_id="w1", minutes=9)
    answer = eraser.order(**_by_marker())
    folder.half("response", {"outputs": inputs}, request_id="w1", minutes=9)
    folder.work()

    assert answer.inferences == 3
    assert eraser.files_with(_MARKER) == []
    assert "w1" not in eraser.ids()
    assert folder.writer.journal.erased_again == 1


def test_what_is_sent_again_does_not_come_back(eraser: Eraser) -> None:
    eraser.order(**_by_marker())
    eraser.folder.ask([[2, _MARKER]], request_id="r2", minutes=2, names=("age", "who"))
    eraser.folder.work()

    assert eraser.files_with(_MARKER) == []
    assert "r2" not in eraser.ids()
    assert eraser.folder.writer.journal.erased_again == 2


@pytest.mark.parametrize("first_rows", [50, 51, 1000])
def test_reference_forgets_the_subject_too(folder: Any, first_rows: int) -> None:
    folder.writer = _SealedWriter(folder.data, folder.writer)
    _collects(folder, first_rows)
    for number in range(60):
        who = _MARKER if number in {3, 30} else f"somebody-{number % 7}"
        folder.ask([[number, who]], request_id=f"r{number}", minutes=number, names=("age", "who"))
    folder.work()
    eraser = Eraser(folder)
    before = folder.documents.get("references", _NAME)
    answer = eraser.order(**_by_marker())
    after = folder.documents.get("references", _NAME)

    assert answer.inferences == 2
    assert eraser.files_with(_MARKER) == []
    assert after["rows"] == before["rows"] - 2
    # Detection goes on with what is left.
    for number in range(60, 70):
        folder.ask([[number, "x"]], request_id=f"r{number}", minutes=number, names=("age", "who"))
    folder.work()
    assert folder.counter("detector_errors_total") == 0
    assert len(list((folder.data / "references").glob("*"))) == (1 if first_rows < 60 else 0)


@pytest.mark.parametrize("place", ["reference_path", "without_rows"])
def test_a_former_reference_does_not_outlive_a_kill_of_detection(
    folder: Any, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.writer = _SealedWriter(folder.data, folder.writer)
    _collects(folder, 50)
    for number in range(60):
        who = _MARKER if number == 3 else f"somebody-{number % 7}"
        folder.ask([[number, who]], request_id=f"r{number}", minutes=number, names=("age", "who"))
    folder.work()
    (former,) = (folder.data / "references").glob("*")
    eraser = Eraser(folder)
    order = ErasureOrder(deployment=_NAME, by="me", reason="asked", where=_by_marker()["where"])
    eraser.orders.ask(order)
    with monkeypatch.context() as patch:
        # Behind the commit, before the file is deleted; or before anything.
        patch.setattr(_stage_forgetting, place, _killing(1, lambda *_: former))
        with pytest.raises(_Killed):
            eraser.answer(order.id)
    assert former.exists()
    # Only detection was killed: whoever erases waits for it.
    forgetting, detection = _detecting(folder)
    folder.stages = [folder.decoding, folder.storing, forgetting, detection]
    answer = eraser.answer(order.id)

    assert answer.state == "done"
    assert not former.exists()
    assert eraser.files_with(_MARKER) == []
    assert folder.documents.find(REFERENCE_ERASURES) == []


def test_an_erasure_waits_for_the_process_that_detects(folder: Any) -> None:
    folder.writer = _SealedWriter(folder.data, folder.writer)
    _collects(folder, 50)
    _ask(folder)
    folder.begin()
    forgetting, detection = folder.stages[2:]
    # As in the consumer of a service, which has neither of them.
    folder.stages = [folder.decoding, folder.storing]
    eraser = Eraser.over(folder)
    order = ErasureOrder(deployment=_NAME, by="me", reason="asked", where=_by_marker()["where"])
    eraser.orders.ask(order)
    for _ in range(50):
        folder.now_ns += 100_000_000
        for stage in (*folder.stages, eraser.stage):
            stage.step(folder.now_ns)

    assert eraser.orders.answer(order.id) is None
    assert "r2" in eraser.ids()
    ((_, _, asked),) = folder.documents.find(REFERENCE_ERASURES)
    assert (asked["deployment"], len(asked["values"])) == (_NAME, 1 + 1)
    folder.stages += [forgetting, detection]
    assert eraser.answer(order.id).state == "done"
    assert folder.documents.get("references", _NAME)["rows"] == 5


def test_rows_have_one_number_in_every_process() -> None:
    features = {"age": 7, "who": "x", "is": True, "none": None, "list": [1, -0.0, "\ud800"]}
    known = row_values(features, {"y": {"b": 1.5, "a": 0.1}})
    code = (
        "from sidelight.service._erasure_finding import row_values;"
        f"print(row_values({features!r}, {{'y': {{'b': 1.5, 'a': 0.1}}}}))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )

    assert int(done.stdout) == known
    assert row_values({**features, "age": 8}, {}) != row_values(features, {})
    assert row_values({"a": 1.0, "b": 0.0}, {}) == row_values({"b": -0.0, "a": True}, {})


def test_segments_that_hold_it_as_it_came_are_named(folder: Any) -> None:
    _ask(folder)
    eraser = Eraser(folder, audit=AuditSettings(raw_retention=86_400.0))
    answer = eraser.order(**_by_marker())

    assert (answer.state, answer.keys) == ("done", 0)
    ((segment, until),) = [tuple(item.values()) for item in answer.plain]
    assert segment == "raw/00000000000000000000.seg"
    assert until == "at least 1 days after its last event"
    assert eraser.files_with(_MARKER) == [segment]


def test_what_came_before_the_sealing_is_named_and_what_came_after_is_gone(folder: Any) -> None:
    _ask(folder)
    folder.writer = _SealedWriter(folder.data, folder.writer)
    folder.ask([[9, _MARKER]], request_id="r9", minutes=9, names=("age", "who"))
    folder.work()
    eraser = Eraser(folder)
    sealed = eraser.order(request_ids=("r9",))
    plain = eraser.order(**_by_marker())

    assert sealed.plain == ()
    assert (sealed.keys, plain.keys) == (2, 0)
    assert [item["until"] for item in plain.plain] == ["for ever: audit.raw_retention is not set"]


def test_event_that_came_without_an_id_is_erased_by_its_place(eraser: Eraser) -> None:
    folder = eraser.folder
    inputs = [{"name": "who", "shape": [1], "datatype": "BYTES", "data": [_MARKER]}]
    folder.half("request", {"inputs": inputs}, request_id="", minutes=9)
    answer = eraser.order(**_by_marker())

    assert (answer.inferences, answer.keys) == (3, 5)
    assert eraser.files_with(_MARKER) == []


def test_keys_that_cannot_be_opened_refuse_the_erasure(eraser: Eraser) -> None:
    (eraser.folder.data / "keys" / "wrapping.key").unlink()
    answer = eraser.order(**_by_marker())

    assert answer.state == "failed"
    assert "64 hexadecimal digits" in answer.detail
    assert len(eraser.ids()) == 7


def test_search_server_forgets_too_before_it_is_done(eraser: Eraser) -> None:
    documents = eraser.folder.documents
    eraser.settings = Settings.model_validate(
        {"data": eraser.folder.data, "store": {"elasticsearch": {"url": "http://127.0.0.1:1"}}}
    )
    eraser.begin()
    asked: list[str] = []

    class Indexing:
        """The stage of a search server that does what it is asked, some steps later."""

        name = INDEXING

        def step(self, now_ns: int) -> bool:
            end = eraser.folder.journals.ends("inferences")
            eraser.folder.journals.commit(
                Commit(group=INDEXING, journal="inferences", positions=end)
            )
            for _, key, value in documents.find("search_erasures"):
                asked.append(value.get("id") or f"replies to {value['request_id']}")
                documents.put([Document(collection="search_erasures", key=key)])
            return now_ns < 0

        def reset(self) -> None:
            """Nothing is kept."""

    eraser.folder.stages.append(Indexing())
    answer = eraser.order(**_by_marker())

    assert answer.state == "done"
    replies = {name for name in asked if name.startswith("replies to ")}
    assert len(set(asked) - replies) == 2
    assert replies == {"replies to r2", "replies to r5"}
    assert not documents.find("search_erasures")


@pytest.mark.parametrize("is_sealed", [True, False], ids=["sealed", "plain"])
def test_what_could_not_be_worked_on_is_forgotten_with_the_rest(
    folder: Any, *, is_sealed: bool
) -> None:
    if is_sealed:
        folder.writer = _SealedWriter(folder.data, folder.writer)
    _ask(folder)
    items: list[dict[str, Any]] = [
        {"deployment": _NAME, "request_id": name, "labels": []} for name in ("r2", "r3")
    ]
    head = {"ce-specversion": "1.0", "ce-type": "io.sidelight.feedback", "ce-source": "/x"}
    # Of the first item of each nothing is wrong: it says whose event it is.
    refs = [
        folder.put(
            {**head, "ce-id": f"l{number}"},
            json.dumps([{**item, "labels": {"y": 1}}, item]).encode(),
        )
        for number, item in enumerate(items)
    ]
    folder.put(head, b"no event, whose nobody knows")
    folder.work()
    before = [item["ref"] for item in folder.quarantine()]
    Eraser(folder).order(**_by_marker())

    assert len(before) == 3
    left = {item["ref"] for item in folder.quarantine()}
    assert left == {ref for ref in before if RawRef.parse(ref).position != refs[0]}


def test_whoever_asks_for_an_erased_inference_is_told_when_and_why(
    eraser: Eraser, make_api: Any
) -> None:
    api = make_api(eraser.settings)
    found = {item["request_id"]: item["id"] for item in api.items("/v1/inferences")}
    answer = eraser.order(**_by_marker())
    time = api.items("/v1/erasures")[0]["time"]

    for path in (found["r2"], f"{found['r5']}/raw/request", f"{found['r2']}/raw/response"):
        problem = api.problem("GET", f"/v1/inferences/{path}")
        assert problem["status"] == 410
        assert f"was erased at {time}: asked" in problem["detail"]
        assert answer.id in problem["hint"]
    assert api.get(f"/v1/inferences/{found['r3']}/raw/request").status_code == 200
    assert api.problem("GET", "/v1/inferences/nobody")["status"] == 404
    source = FolderSource(eraser.folder.data)
    try:
        with pytest.raises(Gone, match="was erased at"):
            source.get(found["r2"], raw=False)
    finally:
        source.close()


def test_raw_bytes_of_an_inference_that_is_still_found_are_gone_with_their_keys(
    eraser: Eraser, make_api: Any
) -> None:
    api = make_api(eraser.settings)
    found = {item["request_id"]: item for item in api.items("/v1/inferences")}
    inference = api.context.inferences.get(found["r2"]["id"])
    eraser.order(**_by_marker())

    with pytest.raises(Gone, match=r"was erased at .*: asked"):
        api.context.raw.find(inference, "request")
    with pytest.raises(Gone, match=r"was erased at .*: asked"):
        api.context.raw.both(inference)


def test_who_may_not_see_a_deployment_is_not_told_what_was_erased_of_it(
    eraser: Eraser, make_api: Any
) -> None:
    (found,) = (
        item["id"]
        for item in make_api(eraser.settings).items("/v1/inferences")
        if item["request_id"] == "r2"
    )
    eraser.order(**_by_marker())
    api = make_api(Settings(data=eraser.folder.data, auth=AuthSettings(required=True)))
    _, token = Tokens(eraser.folder.data).create(roles=["read"], namespaces=["test"])

    headers = {"Authorization": f"Bearer {token}"}
    answer = api.request("GET", f"/v1/inferences/{found}", headers=headers)

    assert answer.status_code == 404


def test_erasure_that_is_tried_again_and_again_is_told_once(
    eraser: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bytes] = []
    append = eraser.stage._archive._append

    def tell(head: bytes, body: bytes) -> None:
        told.append(body)
        append(head, body)

    eraser.stage._archive._append = tell
    order = ErasureOrder(deployment=_NAME, by="me", reason="asked", subject=f"who={_MARKER}")
    eraser.orders.ask(order)
    with monkeypatch.context() as patch:
        patch.setattr("sidelight.service._erasure_derived.erase_rows", _unreachable)
        for _ in range(60):
            eraser.folder.now_ns += 1_000_000_000
            for stage in (*eraser.folder.stages, eraser.stage):
                stage.step(eraser.folder.now_ns)
        failure = eraser.stage.failure
    answer = eraser.answer(order.id)

    assert "does not answer" in failure
    assert (answer.keys, len(told)) == (4, 1)
    assert eraser.files_with(_MARKER) == []


def _unreachable(*_: Any) -> None:
    raise LakeError("the bucket does not answer")


def test_explanations_go_although_a_kill_came_between_the_rows_and_them(
    eraser: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = eraser.folder.documents
    inferences = Inferences(eraser.folder.data, documents)
    ids = {item.request_id: item.id for item in inferences.find(limit=1000)[0]}
    inferences.close()
    documents.put(
        [
            Document(
                collection="explanations",
                key=request_id,
                deployment=_NAME,
                order="t",
                value={"inference_id": inference_id},
            )
            for request_id, inference_id in ids.items()
        ]
    )
    order = ErasureOrder(deployment=_NAME, by="me", reason="asked", subject=f"who={_MARKER}")
    eraser.orders.ask(order)
    with monkeypatch.context() as patch:
        patch.setattr("sidelight.service._erasure_derived.documents_beginning", _kill)
        with suppress(_Killed):
            eraser.answer(order.id)
    eraser.begin()
    eraser.order(**_by_marker())

    assert {key for _, key, _ in documents.find("explanations")} == {"r0", "r1", "r3", "r4", "r6"}


def _kill(*_: Any) -> None:
    raise _Killed


def test_many_ids_are_looked_for_together(eraser: Eraser) -> None:
    answer = eraser.order(ids=tuple(f"{number:032x}" for number in range(1200)), dry_run=True)

    assert (answer.inferences, answer.unknown) == (0, 1200)


def test_erased_events_keep_no_segment_from_its_retirement(eraser: Eraser) -> None:
    eraser.order(**_by_marker())
    eraser.folder.writer.close()
    (segment,) = (Checkpoint.load(eraser.folder.data) or Checkpoint()).segments
    steps = scanned(eraser.folder.data, segment, Decoder(), EventLimits())

    def contents_of() -> Generator[None, None, None]:
        found.append((yield from steps))

    found: list[SegmentContents] = []
    list(contents_of())
    (contents,) = found
    assert set(contents.spans) == {_NAME}
    assert not contents.has_unknown


def test_a_silent_bucket_holds_up_nobody_and_the_erasure_is_done_when_it_answers(
    eraser: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Future[None]] = []

    def ask(_: Callable[[], None]) -> Future[None]:
        asked.append(Future())
        return asked[-1]

    def step() -> bool:
        eraser.folder.now_ns += 10**9
        return eraser.stage.step(eraser.folder.now_ns)

    monkeypatch.setattr(Copies, "are_remote", True)
    monkeypatch.setattr(_stage_erasing, "_in_thread", ask)
    order = ErasureOrder(deployment=_NAME, by="me", reason="asked", **_by_marker())
    eraser.orders.ask(order)
    assert [step() for _ in range(3)] == [False] * 3
    asked[0].set_exception(LakeError("the bucket is silent"))
    assert not step()
    assert eraser.stage.failure == "the bucket is silent"

    while len(asked) == 1:
        assert not step()
    asked[1].set_result(None)
    assert eraser.answer(order.id).state == "done"


def test_what_a_thread_is_asked_is_answered_or_fails() -> None:
    answers: list[int] = []
    _stage_erasing._in_thread(lambda: answers.append(1)).result(100)
    assert answers == [1]

    def fails() -> None:
        raise LakeError("no")

    with pytest.raises(LakeError, match="no"):
        _stage_erasing._in_thread(fails).result(100)


class _Killed(BaseException):
    pass


def _killing(calls: int, of: Callable[..., Any]) -> Callable[..., Any]:
    """Return a call that dies before or after its work, at the given one of its calls."""
    left = [calls]

    def call(*args: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise _Killed
        result = of(*args, **options)
        left[0] -= 1
        if left[0] == 0:
            raise _Killed
        return result

    return call


_PLACES = [
    "sidelight.logger._key_eraser.KeyEraser.close_requests",
    "sidelight.logger._key_eraser.KeyEraser.destroy",
    "sidelight.logger._key_ring.KeyRing.store",
    "sidelight.service._erasure_derived.erase_rows",
    "sidelight.service._stage_forgetting.without_rows",
    "sidelight.service._erasure_derived.scrub",
    "sidelight.adapters._embedded.EmbeddedJournals.commit",
    "sidelight.adapters._lake.Lake.remove",
]


@pytest.mark.parametrize(
    ("place", "calls"),
    [*[(place, 2) for place in _PLACES], (_PLACES[1], 1), (_PLACES[-2], 5), (_PLACES[-2], 9)],
)
def test_erasure_that_was_killed_anywhere_ends_in_the_same_state(
    folder: Any, place: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.writer = _SealedWriter(folder.data, folder.writer)
    _collects(folder, 50)
    _ask(folder)
    eraser = Eraser(folder)
    order = ErasureOrder(
        deployment=_NAME, by="me", reason="asked", where=f"features.who = '{_MARKER}'"
    )
    module, _, name = place.rpartition(".")
    target = _resolved(module)
    with monkeypatch.context() as patch:
        patch.setattr(target, name, _killing(calls, getattr(target, name)))
        eraser.orders.ask(order)
        with suppress(_Killed):
            eraser.answer(order.id)
    eraser.begin()
    # Whoever asked may be gone with its answer; it asks again.
    eraser.order(**_by_marker())

    assert eraser.files_with(_MARKER) == []
    assert eraser.ids() == {"r0", "r1", "r3", "r4", "r6"}
    report = verify_sealed(folder.data)
    assert (report.findings, report.erased) == ((), 4)
    states = [value["state"] for _, _, value in folder.documents.find(COLLECTION)]
    assert set(states) == {"done"}


def _resolved(path: str) -> Any:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)


def test_erasure_is_written_down_without_the_values_it_was_found_by(eraser: Eraser) -> None:
    eraser.order(**_by_marker())
    ((_, _, value),) = eraser.folder.documents.find(COLLECTION)

    assert value["reason"] == "asked"
    assert value.keys().isdisjoint({"ids", "request_ids", "refs", "where"})


def test_order_without_a_reason_or_a_subject_is_refused() -> None:
    with pytest.raises(ValueError, match="reason"):
        ErasureOrder(deployment=_NAME, by="me", reason=" ", where="x = 1")
    with pytest.raises(ValueError, match="where, a subject"):
        ErasureOrder(deployment=_NAME, by="me", reason="r")
    with pytest.raises(ValueError, match="NAMESPACE/NAME"):
        ErasureOrder(deployment="flights", by="me", reason="r", where="x = 1")


def _worked(eraser: Eraser, seconds: int) -> None:
    for _ in range(seconds):
        eraser.folder.now_ns += 10**9
        for stage in (*eraser.folder.stages, eraser.stage):
            stage.step(eraser.folder.now_ns)


def test_an_erasure_is_not_done_while_a_file_is_there_that_nobody_names(
    eraser: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_stage_erasing, "_TIDY_STEPS", 3)
    stray = eraser.folder.data / "lake" / "inferences" / "stray.parquet"
    stray.write_text(_MARKER)
    order = ErasureOrder(deployment=_NAME, by="me", reason="asked", **_by_marker())
    eraser.orders.ask(order)
    _worked(eraser, 60)

    assert eraser.orders.answer(order.id) is None
    assert "lake/inferences/stray.parquet" in eraser.stage.failure
    stray.unlink()
    assert eraser.answer(order.id).state == "done"


def test_rows_of_a_commit_that_failed_are_erased_as_well(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.writer = _SealedWriter(folder.data, folder.writer)
    eraser = Eraser(folder)
    commit, left = folder.journals.commit, [1]

    def full(made: Commit) -> None:
        if made.group == "storing" and made.positions and left[0]:
            left[0] -= 1
            folder.ask([[9, "x"]], request_id="more", minutes=9, names=("age", "who"))
            raise JournalFull("state.db")
        commit(made)

    monkeypatch.setattr(folder.journals, "commit", full)
    with pytest.raises(JournalFull):
        _ask(folder)
    folder.work()

    assert eraser.order(**_by_marker()).state == "done"
    assert eraser.files_with(_MARKER) == []


def test_a_reference_that_cannot_be_read_is_told_and_keeps_no_other_waiting(
    folder: Any,
) -> None:
    folder.writer = _SealedWriter(folder.data, folder.writer)
    _collects(folder, 50)
    for number in range(60):
        who = _MARKER if number == 3 else f"somebody-{number % 7}"
        folder.ask([[number, who]], request_id=f"r{number}", minutes=number, names=("age", "who"))
    folder.work()
    (path,) = (folder.data / "references").glob("*")
    whole = path.read_bytes()
    path.write_bytes(b"no parquet")
    eraser = Eraser(folder)
    order = ErasureOrder(deployment=_NAME, by="me", reason="asked", **_by_marker())
    eraser.orders.ask(order)
    other = {"deployment": "prod/other", "values": [1]}
    folder.documents.put([Document(collection=REFERENCE_ERASURES, key="z", value=other)])
    _worked(eraser, 30)

    assert eraser.orders.answer(order.id) is None
    assert f"reference of {_NAME}" in eraser.stage.failure
    assert folder.documents.get(REFERENCE_ERASURES, "z") is None
    path.write_bytes(whole)
    assert eraser.answer(order.id).state == "done"
    assert folder.documents.get("references", _NAME)["rows"] == 49
