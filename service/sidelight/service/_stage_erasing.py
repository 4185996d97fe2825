"""Erases what somebody ordered: first the keys, then all that was made of the events.

Every step can be done again. Before the first one the erasure is written down as a document of
``state.db``; a start that finds one that is not done goes on with it.
"""

import logging
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from sidelight.adapters import (
    ElasticInferences,
    EmbeddedDocuments,
    Inferences,
    Lake,
    LakeError,
    QueryError,
    QueryStore,
)
from sidelight.logger import Commit, Document, EventLimits, Journals
from sidelight.logger._journal import JournalName
from sidelight.logger.errors import JournalError, SealingKeyError
from sidelight.service._archive_copies import every
from sidelight.service._erasure_archive import Append, ErasureArchive, Sentence
from sidelight.service._erasure_derived import ErasureDerived
from sidelight.service._erasure_finding import Found, find, refuse_if_held
from sidelight.service._erasure_orders import (
    COLLECTION,
    ErasureAnswer,
    ErasureOrder,
    ErasureOrders,
)
from sidelight.service._erasure_progress import ErasureProgressFile, written
from sidelight.service._holds import Holds
from sidelight.service._metrics import split_name
from sidelight.service._settings import Settings
from sidelight.service._stage import DECODING, DETECTION, ERASING, INDEXING, STORING, Counts, Stage
from sidelight.service._stage_decoding import DecodingStage
from sidelight.service.errors import ConfigurationError, OnHold, ServiceError

log = logging.getLogger(__name__)

_LOOK_NS: Final = 200_000_000
_AGAIN_NS: Final = 5_000_000_000
_SWEEP_NS: Final = 60_000_000_000
# Half a minute at least where nothing else happens: as long as a large merge.
_TIDY_STEPS: Final = 3000
_STRAY_HINT: Final = (
    "move it out of lake/ if somebody put it there; a start of the service deletes what nothing "
    "names"
)
_UNFORESEEN_HINT: Final = "the log of the service says more"

# False while it waits for something, True when it has done something.
_Steps = Generator[bool, None, None]


class _UnnamedFileError(LakeError):
    hint = _STRAY_HINT


class ErasingStage:
    """Works off orders beside the other stages of the consumer.

    Parameters
    ----------
    journals : Journals
        Where the changes are committed.
    documents : Documents
        Results, and what was erased.
    lake : Lake
        Writes what stays of files.
    settings : Settings
        The data folder and its bounds.
    stages : sequence of Stage
        The others of this process; they forget what they hold in memory.
    append : callable
        Has the archive keep a tombstone.

    Attributes
    ----------
    failure : str
        Why the last try was not done; empty when there was none.

    """

    name = ERASING

    def __init__(
        self,
        journals: Journals,
        documents: EmbeddedDocuments,
        lake: Lake,
        settings: Settings,
        stages: Sequence[Stage],
        append: Append,
    ) -> None:
        self._journals = journals
        self._documents = documents
        self._lake = lake
        self._settings = settings
        self._stages = stages
        self._orders = ErasureOrders(settings.data)
        self._holds = Holds(settings.data)
        self._derived = ErasureDerived(journals, documents, lake, settings.data)
        self._archive = ErasureArchive(
            settings.data,
            append,
            limits=EventLimits(max_inflated_bytes=settings.limits.decompressed),
            raw_retention_s=settings.audit.raw_retention,
        )
        self._has_search = settings.store.elasticsearch is not None
        self._work: _Steps | None = None
        self._next_ns = 0
        self._now_ns = 0
        self._may_be_unfinished = True
        self._orders.sweep()
        self._swept_ns = 0
        self._progress = ErasureProgressFile(settings.data)
        self._progress.forget()
        self.failure = ""

    def reset(self) -> None:
        """Begin again from what is committed, a little later."""
        self._work = None
        self._may_be_unfinished = True
        self._next_ns = self._now_ns + _AGAIN_NS

    def step(self, now_ns: int) -> bool:
        """Do one piece of an erasure; look for orders now and then."""
        self._now_ns = now_ns
        if self._work is None:
            # A clock that was set back makes nobody wait for what it showed before.
            if 0 <= self._next_ns - now_ns < 2 * _AGAIN_NS:
                return False
            self._next_ns = now_ns + _LOOK_NS
            self._work = self._begun()
            if self._work is None:
                return False
        try:
            for worked in self._work:
                self._progress.keep()
                return worked
        except (JournalError, LakeError, OSError, ConfigurationError) as error:
            log.warning("erasure not done, tried again", extra={"reason": str(error)})
            self.failure = str(error)
            self._tell(self.failure, str(getattr(error, "hint", "") or ""))
            self.reset()
            return False
        except Exception as error:
            # What it says may hold anything; who runs the stage logs it, and calls reset.
            self._tell(f"nobody foresaw this: {type(error).__name__}", _UNFORESEEN_HINT)
            raise
        self._progress.done()
        self._work = None
        self._next_ns = 0
        return True

    def _tell(self, error: str, hint: str) -> None:
        self._progress.failed(error, hint, now_ns=self._now_ns, next_ns=self._now_ns + _AGAIN_NS)

    def _begun(self) -> _Steps | None:
        if self._may_be_unfinished:
            for _, value in every(self._documents, COLLECTION):
                if value["state"] != "done":
                    self._progress.begin(value["id"], value["time"])
                    return self._reached(self._erase(value))
            self._may_be_unfinished = False
        self._sweep()
        order = self._orders.next()
        if order is None:
            return None
        self._progress.begin(order.id, self._orders.since(order.id) or _now())
        return self._reached(self._order(order))

    def _sweep(self) -> None:
        """Let old answers go, now and then; whatever way the clock was set."""
        if abs(self._now_ns - self._swept_ns) < _SWEEP_NS:
            return
        self._swept_ns = self._now_ns
        try:
            self._orders.sweep()
        except OSError as error:
            log.warning("old answers not deleted", extra={"reason": str(error)})

    def _waiting(self, what: str, is_over: Callable[[], bool]) -> _Steps:
        """Wait, and say for what."""
        if is_over():
            return
        self._progress.wait_for(what)
        yield False
        while not is_over():
            yield False
        self._progress.wait_for("")

    def _reached(self, work: _Steps) -> _Steps:
        """Ask the bucket first: one that is silent holds up a thread, and not all stages."""
        if self._lake.is_remote:
            asked = _in_thread(self._lake.ask)
            yield from self._waiting("the bucket of the lake to answer", asked.done)
            asked.result()
        yield from work

    def _order(self, order: ErasureOrder) -> _Steps:
        """Find what is meant, and decide; what is decided is done whatever happens."""
        try:
            self._archive.check()
        except SealingKeyError as error:
            self._orders.close(_refusal(order.id, "failed", error))
            return
        yield from self._caught_up()
        try:
            found = yield from self._found(order)
            if order.dry_run:
                self._orders.close(_answer(order.id, found, state="found"))
                return
            value = self._decide(order, found) if found.request_ids else None
        except OnHold as error:
            self._orders.close(_refusal(order.id, "held", error))
            return
        except (QueryError, ServiceError) as error:
            self._orders.close(_refusal(order.id, "refused", error))
            return
        if value is None:
            self._orders.close(_answer(order.id, found, state="done"))
            return
        # The values that somebody was found by are not needed any more.
        self._orders.forget(order.id)
        yield from self._erase(value, found)

    def _caught_up(self) -> _Steps:
        """Wait until everything that was acknowledged before now is in the lake."""
        yield from self._passed([DECODING], "events")
        for stage in self._stages:
            if isinstance(stage, DecodingStage):
                stage.give_up_waiting()
        groups = (STORING, DETECTION, *((INDEXING,) if self._has_search else ()))
        yield from self._passed(groups, "inferences")

    def _passed(self, groups: Sequence[str], journal: JournalName) -> _Steps:
        """Wait until these groups have everything that is in a journal by now."""
        end = sum(self._journals.ends(journal).values())
        for group in groups:
            passed = partial(self._has_passed, group, journal, end)
            yield from self._waiting(f"{group} to take what came before", passed)

    def _has_passed(self, group: str, journal: JournalName, end: int) -> bool:
        return sum(self._journals.positions(group, journal).values()) >= end

    def _found(
        self, order: ErasureOrder, before: Found | None = None
    ) -> Generator[bool, None, Found]:
        store = self._open_store(order.deployment)
        others = partial(self._derived.of_requests, order.deployment)
        quick = others if self._settings.store.lake else None
        try:
            for found in find(order, store.find, others=quick, found=before):
                if found is not None:
                    return found
                yield True
        finally:
            store.close()
        return Found()

    def _open_store(self, deployment: str) -> QueryStore:
        # The lake has everything that was decoded; a search server may be behind.
        if self._settings.store.lake:
            return Inferences(self._settings.data, self._documents)
        from sidelight.service._query_store import open_query_store  # noqa: PLC0415 - rarely

        store = open_query_store(self._settings, self._documents)
        if isinstance(store, ElasticInferences):
            try:
                # What it has taken it finds a while later, by itself.
                store.refresh(deployment)
            except BaseException:
                store.close()
                raise
        return store

    def _decide(self, order: ErasureOrder, found: Found) -> dict[str, Any]:
        """Write the erasure down while no hold can be added; from here on it is done."""
        value = {
            "id": order.id,
            "deployment": order.deployment,
            "by": order.by,
            "reason": order.reason,
            "time": _now(),
            "state": "decided",
            "inferences": len(found.inferences),
            "rows": found.rows,
            "unknown": found.unknown,
            "keys": 0,
            "plain": [],
            "ids": sorted(found.inferences),
            "request_ids": sorted(found.request_ids),
            "refs": sorted(found.refs),
        }
        with self._holds.kept() as holds:
            refuse_if_held(found, order.deployment, holds)
            self._note(value)
        return value

    def _erase(self, value: dict[str, Any], found: Found | None = None) -> _Steps:
        """Do what was decided, from the beginning: each step leaves what is done already."""
        sentence = Sentence(
            **{name: value[name] for name in ("id", "deployment", "by", "reason", "time")}
        )
        deployment, ids, request_ids = value["deployment"], value["ids"], value["request_ids"]
        if request_ids:
            is_told = value["state"] == "told"
            destroyed = self._archive.destroy(sentence, request_ids, value["refs"], is_told=is_told)
            value |= {"keys": max(value["keys"], destroyed), "state": "told"}
            self._note(value)
            # What came meanwhile is found as well; from now on nothing more can be read.
            yield from self._caught_up()
            found = yield from self._found(_again(value), found)
            ids = sorted({*ids, *found.inferences})
            # Whoever goes on after a kill may find no rows any more that tell of them.
            value["ids"] = ids
            self._note(value)
            self._derived.note_erased(deployment, ids, value["id"])
            value["plain"] = yield from self._plain(deployment, request_ids)
            yield from self._erase_derived(value, found)
        self._finish(value)
        self._orders.close(_told(value))

    def _erase_derived(self, value: dict[str, Any], found: Found) -> _Steps:
        """Take them out of all that was made of events, and wait until it is so everywhere."""
        deployment, ids, request_ids = value["deployment"], value["ids"], value["request_ids"]
        self._derived.ask_reference(value["id"], deployment, found.values)
        yield from self._waiting(
            "detection to take rows out of a reference", self._derived.is_reference_done
        )
        for _ in self._derived.rows(deployment, ids):
            yield True
        for _ in self._derived.results(deployment, ids, request_ids):
            yield True
        refs = self._derived.quarantined()
        for _ in self._derived.release(self._archive.erased_refs(deployment, request_ids, refs)):
            yield True
        if self._has_search:
            self._derived.ask_search(deployment, ids, request_ids)
            yield from self._waiting(
                "the search server to acknowledge that it has forgotten",
                self._derived.is_search_done,
            )
        self._forget_memory()
        yield from self._waiting("the bucket to lose its files", self._derived.is_bucket_done)
        for _ in range(_TIDY_STEPS):
            if not (unnamed := self._derived.unnamed()):
                break
            self._progress.wait_for(f"lake/{unnamed[0]} to go: {_STRAY_HINT}")
            yield False
        else:
            # It may hold what is erased: of a merge that is slow, or of a commit that failed.
            raise _UnnamedFileError(f"lake/{unnamed[0]}: expected an entry that names it, got none")
        self._derived.forget_files()

    def _plain(
        self, deployment: str, request_ids: Sequence[str]
    ) -> Generator[bool, None, list[Mapping[str, str]]]:
        named: list[Mapping[str, str]] = []
        for segment in self._archive.plain_segments(deployment, request_ids):
            if segment is not None:
                named.append(segment)
            yield True
        return named

    def _finish(self, value: dict[str, Any]) -> None:
        """Forget whose it was, leave no old bytes in the database, and say that it is done."""
        kept = {name: of for name, of in value.items() if name not in {"ids", "refs"}}
        counts = Counts()
        counts.add("erased_inferences_total", split_name(value["deployment"]), value["inferences"])
        # Without its requests: a start that finds it so has nothing to do but this.
        self._note({**kept, "ids": [], "refs": [], "request_ids": []}, counts)
        self._derived.scrub()
        del kept["request_ids"]
        self._note({**kept, "state": "done"})

    def _note(self, value: Mapping[str, Any], counts: Counts | None = None) -> None:
        document = Document(
            collection=COLLECTION,
            key=value["id"],
            deployment=value["deployment"],
            order=value["time"],
            value=value,
        )
        self._journals.commit(
            Commit(
                group=ERASING,
                journal="inferences",
                documents=[document],
                counters=counts or Counts(),
                erase=True,
            )
        )

    def _forget_memory(self) -> None:
        for stage in self._stages:
            stage.reset()


def _in_thread(work: Callable[[], None]) -> Future[None]:
    """Start something in a thread that nobody waits for at the end."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - told to who asks for the result
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=run, name="sidelight-asking", daemon=True).start()
    return future


def _again(value: Mapping[str, Any]) -> ErasureOrder:
    return ErasureOrder(
        id=value["id"],
        deployment=value["deployment"],
        by=value["by"],
        reason=value["reason"],
        ids=tuple(value["ids"]),
        request_ids=tuple(value["request_ids"]),
    )


def _answer(order_id: str, found: Found, *, state: Any) -> ErasureAnswer:
    return ErasureAnswer(
        id=order_id,
        state=state,
        inferences=len(found.inferences),
        rows=found.rows,
        unknown=found.unknown,
    )


def _told(value: Mapping[str, Any]) -> ErasureAnswer:
    return ErasureAnswer(
        id=value["id"],
        state="done",
        inferences=value["inferences"],
        rows=value["rows"],
        keys=value["keys"],
        unknown=value["unknown"],
        plain=tuple(value["plain"]),
    )


def _refusal(order_id: str, state: Any, error: Exception) -> ErasureAnswer:
    hint = str(getattr(error, "hint", "") or "")
    return ErasureAnswer(id=order_id, state=state, detail=str(error), hint=hint)


def _now() -> str:
    return written(datetime.now(UTC))
