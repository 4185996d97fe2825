"""What somebody asks to be erased, and the answer: files in ``run/``, one each.

An order may name the values by which a person is found. It is a file of its own that is deleted
when it is worked off: nothing of it gets into the database or into a log.
"""

import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, Self

import orjson

from sidelight.logger._segments_folder import replace_file
from sidelight.service._erasure_progress import ErasureProgress, ErasureProgressFile, moment
from sidelight.service.errors import BadRequest, NotReady, OnHold, ServiceError

State = Literal["running", "done", "found", "refused", "held", "failed"]

COLLECTION: Final = "erasures"
"""Of the documents that tell what was erased."""

_ALWAYS: Final = frozenset({"id", "state", "inferences", "rows", "keys", "unknown", "plain"})
_POLL_S: Final = 0.05
_KEPT_S: Final = 3600.0
_ID: Final = re.compile(r"erasure-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureOrder:
    """Which inferences are to be erased.

    Parameters
    ----------
    deployment : str
        ``namespace/name``, in its stored form.
    by, reason : str
        Who asks, and why.
    where : str
        An expression of the ``where`` language; empty for none.
    subject : str
        ``COLUMN=VALUE``: who is meant, whether the column holds texts or numbers.
    ids : tuple of str
        Ids of inferences.
    request_ids : tuple of str
        Ids of requests; for what is only in the archive any more.
    dry_run : bool
        Whether it is only looked for.

    """

    deployment: str
    by: str
    reason: str
    where: str = ""
    subject: str = ""
    ids: tuple[str, ...] = ()
    request_ids: tuple[str, ...] = ()
    dry_run: bool = False
    id: str = field(default_factory=lambda: f"erasure-{secrets.token_hex(6)}")

    def __post_init__(self) -> None:
        """Check what no later part can."""
        if not self.reason.strip():
            raise BadRequest("reason: expected why it is erased, got nothing")
        if len([part for part in self.deployment.split("/", 1) if part]) != 2:  # noqa: PLR2004
            raise BadRequest(f"deployment: expected NAMESPACE/NAME, got {self.deployment!r}")
        if not (self.where.strip() or self.subject or self.ids or self.request_ids):
            raise BadRequest(
                "expected where, a subject, or ids of inferences or requests, got none of them"
            )
        if self.subject and not all(self.subject.partition("=")):
            raise BadRequest("subject: expected COLUMN=VALUE, got no such pair")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureAnswer:
    """What became of an order.

    Parameters
    ----------
    id : str
        Of the erasure.
    state : str
        ``running`` or ``done``; ``found`` after a dry run; ``refused``, ``held`` and ``failed``
        changed nothing.
    inferences, rows, keys : int
        How many inferences and rows, and how many keys of the archive were destroyed.
    unknown : int
        Ids that no inference has.
    plain : tuple of mapping
        Segments that still hold events of them as they came: ``segment`` and ``until``.
    detail, hint : str
        For a person.
    since, waits_for : str
        Of one that is running: when it was ordered, and what it waits for.
    failed_tries, last_error, failed_at, next_try : int and str
        Of one that is running: how often it failed, why and when at last, and when it is tried
        again; ``hint`` says what to do then.

    """

    id: str
    state: State
    inferences: int = 0
    rows: int = 0
    keys: int = 0
    unknown: int = 0
    plain: tuple[Mapping[str, str], ...] = ()
    detail: str = ""
    hint: str = ""
    since: str = ""
    waits_for: str = ""
    failed_tries: int = 0
    last_error: str = ""
    failed_at: str = ""
    next_try: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the form of the API."""
        value = asdict(self) | {"plain": [dict(item) for item in self.plain]}
        return {name: of for name, of in value.items() if of or name in _ALWAYS}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` returned."""
        return cls(**{**value, "plain": tuple(value["plain"])})

    @classmethod
    def of_document(cls, value: Mapping[str, Any]) -> Self:
        """Return what the document of an erasure says."""
        names = ("id", "inferences", "rows", "keys", "unknown")
        known = {name: value[name] for name in names}
        plain = tuple(value["plain"])
        if value["state"] == "done":
            return cls(**known, state="done", plain=plain)
        return cls(**known, state="running", plain=plain, since=value["time"])

    def with_progress(self, progress: ErasureProgress | None) -> Self:
        """Return it with what the consumer tells, if it is running."""
        if self.state != "running" or progress is None:
            return self
        if progress.id != self.id:
            return replace(self, waits_for=f"{progress.id}, which came before")
        return replace(self, **asdict(progress))

    def told(self) -> str:
        """Return for a person why it is not done; empty when there is nothing to tell."""
        if self.last_error:
            hint = f"; {self.hint}" if self.hint else ""
            return f"tried {self.failed_tries} times, {self.last_error}{hint}"
        return f"it waits for {self.waits_for}" if self.waits_for else ""

    def checked(self) -> Self:
        """Return it, or raise what it says went wrong."""
        kinds: dict[str, type[ServiceError]] = {"refused": BadRequest, "held": OnHold}
        if self.state in kinds:
            raise kinds[self.state](self.detail, hint=self.hint)
        if self.state == "failed":
            raise ServiceError(self.detail, hint=self.hint)
        return self


class ErasureOrders:
    """The orders of a data folder, between whoever asks and the consumer.

    Parameters
    ----------
    data : Path
        The data folder.

    """

    def __init__(self, data: Path) -> None:
        self._folder = data / "run" / "erasures"
        self._progress = ErasureProgressFile(data)

    def ask(self, order: ErasureOrder) -> None:
        """Hand over an order."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        value = {name: list(of) if isinstance(of, tuple) else of for name, of in _fields(order)}
        path = self._folder / f"{order.id}.order"
        replace_file(path, orjson.dumps(value), scratch=self._folder)

    def wait(
        self,
        order: ErasureOrder,
        *,
        patience_s: float,
        pause: Callable[[float], object] = time.sleep,
        tell: Callable[[ErasureAnswer], object] = lambda _: None,
    ) -> ErasureAnswer:
        """Return the answer to an order; ``tell`` is called with what is known meanwhile.

        Raises
        ------
        NotReady
            When there is none in time; it is still worked on.

        """
        deadline = time.monotonic() + patience_s
        while (answer := self.answer(order.id)) is None:
            running = ErasureAnswer(id=order.id, state="running").with_progress(self.progress())
            tell(running)
            if time.monotonic() > deadline:
                raise NotReady(
                    f"{order.id}: not done after {patience_s:g} s; "
                    + (running.told() or "it is worked on"),
                    hint=f"GET /v1/erasures/{order.id} says when it is done",
                )
            pause(_POLL_S)
        return answer

    def progress(self) -> ErasureProgress | None:
        """Return what the consumer tells of the one that it works on."""
        return self._progress.read()

    def since(self, order_id: str) -> str:
        """Return when an order was given; empty when it is not there any more."""
        try:
            return moment((self._folder / f"{order_id}.order").stat().st_mtime_ns)
        except FileNotFoundError:
            return ""

    def oldest_s(self) -> float | None:
        """Return when the oldest of what is not done was ordered, seconds since 1970."""
        times: list[float] = []
        for path in self._folder.glob("*.order"):
            with suppress(FileNotFoundError):
                times.append(path.stat().st_mtime)
        if (progress := self.progress()) is not None:
            times.append(progress.since_s)
        return min(times, default=None)

    def open(self) -> Iterator[ErasureOrder]:
        """Yield the orders that nothing is decided of, whether they are worked on or wait."""
        for path in sorted(self._folder.glob("*.order")):
            with suppress(OSError, ValueError, TypeError, ServiceError):
                yield _order_of(path)

    def answer(self, order_id: str) -> ErasureAnswer | None:
        """Take the answer to an order, None while there is none."""
        found = self._answered(order_id)
        if found is None:
            return None
        (self._folder / f"{order_id}.answer").unlink(missing_ok=True)
        return found[1]

    def next(self) -> ErasureOrder | None:
        """Return an order that is not answered, the oldest first."""
        try:
            paths = sorted(self._folder.glob("*.order"), key=lambda path: path.stat().st_mtime_ns)
        except FileNotFoundError:
            return None
        for path in paths:
            try:
                return _order_of(path)
            except FileNotFoundError:
                continue
            except (ValueError, TypeError, ServiceError) as error:
                # Only a command of another version writes such a one.
                self.close(ErasureAnswer(id=path.stem, state="refused", detail=str(error)))
        return None

    def state(self, order_id: str) -> tuple[str, ErasureAnswer] | None:
        """Return what is known of an order that nothing was written down of; None for none.

        Who looks takes nothing away: it can be asked for again until it is swept.

        Returns
        -------
        tuple of str and ErasureAnswer or None
            The deployment, empty where it cannot be told, and what is known.

        """
        if not _ID.fullmatch(order_id):
            return None
        # Before it is looked whether the order is there: it may go between the two.
        deployment = self._deployment(order_id)
        if since := self.since(order_id):
            running = ErasureAnswer(id=order_id, state="running", since=since)
            return deployment, running.with_progress(self.progress())
        return self._answered(order_id)

    def sweep(self) -> None:
        """Delete answers that are an hour old, and orders that a kill cut off."""
        for path in self._folder.glob("*.answer"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _KEPT_S:
                    path.unlink()
        for path in self._folder.glob("*.tmp"):
            # It names a person, and is whole for a moment before it has its name.
            if not _is_running(path.stem.rpartition(".")[2]):
                path.unlink(missing_ok=True)

    def forget(self, order_id: str) -> None:
        """Delete an order, with all that it names."""
        (self._folder / f"{order_id}.order").unlink(missing_ok=True)

    def close(self, answer: ErasureAnswer) -> None:
        """Answer an order, and delete it."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._folder / f"{answer.id}.answer"
        value = answer.to_json() | {"deployment": self._deployment(answer.id)}
        replace_file(path, orjson.dumps(value), scratch=self._folder)
        self.forget(answer.id)

    def _deployment(self, order_id: str) -> str:
        """Return whose inferences an order names; empty when it is gone or cannot be read."""
        try:
            return _order_of(self._folder / f"{order_id}.order").deployment
        except (OSError, ValueError, TypeError, ServiceError):
            return ""

    def _answered(self, order_id: str) -> tuple[str, ErasureAnswer] | None:
        try:
            value = orjson.loads((self._folder / f"{order_id}.answer").read_bytes())
        except FileNotFoundError:
            return None
        # A consumer of an older version told no deployment.
        return value.pop("deployment", ""), ErasureAnswer.from_json(value)


def _order_of(path: Path) -> ErasureOrder:
    value = orjson.loads(path.read_bytes())
    tuples = {name: tuple(of) for name, of in value.items() if isinstance(of, list)}
    return ErasureOrder(**{**value, **tuples})


def _is_running(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def noted(order: ErasureOrder) -> dict[str, Any]:
    """Return what the access log keeps of an order: none of the values that it names."""
    from sidelight.adapters import QueryError  # noqa: PLC0415 - needs Arrow
    from sidelight.adapters._where import parse, predicates  # noqa: PLC0415

    columns: list[str] = []
    if order.where.strip():
        with suppress(QueryError):
            columns = [str(item.column) for item in predicates(parse(order.where))]
    if order.subject:
        columns.append(order.subject.partition("=")[0])
    return {
        "deployment": order.deployment,
        "erasure": order.id,
        "columns": sorted(set(columns)),
        "ids": len(order.ids),
        "request_ids": len(order.request_ids),
        "dry_run": order.dry_run,
    }


def _fields(order: ErasureOrder) -> list[tuple[str, Any]]:
    return list(asdict(order).items())
