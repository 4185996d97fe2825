"""Inferences become columnar batches, once; nobody behind it sees wire formats."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from sidelight.adapters._batches import Item, build_batch
from sidelight.adapters._decoded import Decoded, Layouts
from sidelight.adapters._decoding_answers import one_a_row
from sidelight.adapters._decoding_columns import CONVERSION_ERRORS, arrays, registered_names
from sidelight.adapters._decoding_incomplete import incomplete, refused
from sidelight.adapters._known_inferences import Known, KnownInferences
from sidelight.adapters._known_plan import Plan
from sidelight.adapters._labels import Labels, labels
from sidelight.adapters.dialects import (
    DIALECTS,
    Dialect,
    Half,
    Layout,
    Side,
    Tensor,
    opaque,
    read_payload,
)
from sidelight.adapters.dialects._half import NOTHING
from sidelight.logger import Arrival, Meeting, Pair, Rejected
from sidelight.payloads import Batch, Event, Schema

log = logging.getLogger(__name__)

_FEW: Final = 32

_INTERNAL: Final = (*CONVERSION_ERRORS, LookupError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """What one step's pairs became.

    Parameters
    ----------
    batches : list of Batch
        One after the other, the rows of a deployment are in the order of completion: what is said
        of a stream must not depend on which of its inferences were decoded together.
    undecoded : Counter by (deployment, reason)
        Payloads that stand in them as one opaque value, and why.

    """

    batches: list[Batch]
    undecoded: Counter[tuple[str, str]] = field(default_factory=Counter)


class Decoder:
    """Reads payloads by their dialect and builds batches.

    Parameters
    ----------
    schema : callable of str to Schema or None, optional
        Returns the registered schema of a deployment; it names columns that payloads do not.
    dialects : sequence of Dialect, optional
        Asked in order.
    max_inflated_bytes : int, default 64 MiB
        Bound of one inflated payload.

    """

    def __init__(
        self,
        schema: Callable[[str], Schema | None] | None = None,
        *,
        dialects: Sequence[Dialect] = DIALECTS,
        max_inflated_bytes: int = 64 << 20,
    ) -> None:
        self._schema = schema
        self._dialects = dialects
        self._max_inflated_bytes = max_inflated_bytes
        self._known = KnownInferences()

    def decode(self, pairs: Iterable[Pair | Meeting]) -> Decoding:
        """Return batches that hold every pair, whatever its payloads are."""
        items = list(self._items(list(pairs)))
        batches: list[Batch] = []
        undecoded: Counter[tuple[str, str]] = Counter()
        for layouts, group in _grouped(items):
            for batch, members in self._batches(layouts, group):
                batches.append(batch)
                _count(undecoded, members)
        return Decoding(batches=batches, undecoded=undecoded)

    def labels(self, event: Event) -> tuple[Labels, list[Rejected]]:
        """Return the labels of a feedback event, and what of it is none; see ``labels``."""
        return labels(event, self._schema, max_inflated_bytes=self._max_inflated_bytes)

    def _items(self, pairs: Sequence[Pair | Meeting]) -> Iterator[Item]:
        """Yield what inferences say, recognised or read; what few taught serves the others."""
        begin, size = 0, _FEW
        while begin < len(pairs):
            some = pairs[begin : begin + size]
            n_learned = self._known.n_learned
            for pair, known in zip(some, self._known.found(some), strict=True):
                yield known or self._decoded(pair)
            begin += size
            size = 2 * size if self._known.n_learned > n_learned else len(pairs)

    def _decoded(self, pair: Pair | Meeting) -> Decoded:
        whole = pair.pair() if isinstance(pair, Meeting) else pair
        request = self._half(whole.request, "request")
        response = self._half(whole.response, "response")
        if isinstance(pair, Meeting):
            self._learn(pair.asked, whole.request, request, "request")
            self._learn(pair.answered, whole.response, response, "response")
        return Decoded(whole, request, one_a_row(request, response))

    def _learn(self, arrival: Arrival, event: Event | None, half: Half | None, side: Side) -> None:
        if half is not None:
            self._known.learn(arrival, half, lambda body: self._read(body, side, event))

    def _half(self, event: Event | None, side: Side) -> Half | None:
        if event is None:
            return None
        if (unread := incomplete(event, side)) is not None:
            return unread
        try:
            half = self._read(event.data, side, event)
        except _INTERNAL:
            # A dialect met what it did not foresee. The inference must not be lost for that.
            log.exception("payload not decoded", extra={"ref": str(event.ref)})
            return opaque(event.data, "unforeseen")
        return refused(event, half) if side == "response" else half

    def _read(self, body: bytes, side: Side, event: Event | None) -> Half:
        return read_payload(
            body,
            side,
            self._dialects,
            event=event,
            max_inflated_bytes=self._max_inflated_bytes,
        )

    def _batches(
        self, layouts: Layouts, group: list[Item]
    ) -> Iterable[tuple[Batch, Sequence[Item]]]:
        deployment = group[0].deployment
        names = registered_names(self._schema(deployment) if self._schema else None)
        try:
            return [(build_batch(deployment, group, layouts, names), group)]
        except CONVERSION_ERRORS:
            pass
        # One payload holds what its datatype does not allow. It becomes opaque, the others stay.
        checked = [
            _checked(self._decoded(item.meeting) if isinstance(item, Known) else item)
            for item in group
        ]
        built: list[tuple[Batch, Sequence[Item]]] = []
        for common, members in _grouped(checked):
            try:
                built.append((build_batch(deployment, members, common, names), members))
            except CONVERSION_ERRORS:
                built += [
                    (build_batch(deployment, [item], common, names), [item]) for item in members
                ]
        return built


def _grouped(items: Iterable[Item]) -> list[tuple[Layouts, list[Item]]]:
    """Return runs of one deployment and layout; those of a deployment are in order."""
    runs: list[tuple[Layouts, list[Item]]] = []
    last: dict[str, int] = {}
    # Most are of a plan of which the one before them was: nothing to compare.
    usual: dict[Plan, list[Item]] = {}
    for item in items:
        if isinstance(item, Known) and (run := usual.get(item.plan)) is not None:
            run.append(item)
            continue
        deployment, layouts = item.deployment, item.layouts
        place = last.get(deployment)
        common = None if place is None else _common_layouts(runs[place][0], layouts)
        if place is None or common is None:
            if place is not None:
                usual = {plan: run for plan, run in usual.items() if run is not runs[place][1]}
            place = last[deployment] = len(runs)
            runs.append((layouts, [item]))
        else:
            if common != runs[place][0]:
                runs[place] = (common, runs[place][1])
            runs[place][1].append(item)
        if isinstance(item, Known):
            usual[item.plan] = runs[place][1]
    return runs


def _common_layouts(one: Layouts, other: Layouts) -> Layouts | None:
    if one == other:
        return one
    request, response = map(_common_layout, one, other)
    # Halves that are missing on one side only are layouts of their own: one that is nowhere in
    # common has no columns, which would lose what an inference behind an orphan says.
    if (request is None and one[0] is not other[0]) or (
        response is None and one[1] is not other[1]
    ):
        return None
    return request, response


@lru_cache(maxsize=4096)
def _common_layout(one: Layout | None, other: Layout | None) -> Layout | None:
    """Return the layout that holds the payloads of both, None when there is none.

    Where JSON tells the datatype by the values, a null has every datatype: a feature that is
    missing now and then does not cut a stream into short batches.
    """
    if one is other or one is None or other is None:
        return one if one is other else None
    found = map(_common_tensor, one.tensors, other.tensors)
    tensors = tuple(tensor for tensor in found if tensor is not None)
    if (one.protocol, one.form, one.extra, one.whole, len(tensors), len(tensors)) != (
        *(other.protocol, other.form, other.extra, other.whole),
        *(len(one.tensors), len(other.tensors)),
    ):
        return None
    if tensors == other.tensors:
        return other
    return one if tensors == one.tensors else replace(one, tensors=tensors)


def _common_tensor(one: Tensor, other: Tensor) -> Tensor | None:
    if one == other or replace(other, datatype=one.datatype) != one:
        return one if one == other else None
    if NOTHING not in (one.datatype, other.datatype):
        return None
    return other if one.datatype == NOTHING else one


def _checked(item: Decoded) -> Decoded:
    pair = item.pair
    return Decoded(pair, _sound(item.request, pair.request), _sound(item.response, pair.response))


def _sound(half: Half | None, event: Event | None) -> Half | None:
    if half is None or event is None:
        return half
    try:
        for tensor, values in zip(half.layout.tensors, half.values, strict=True):
            arrays(tensor, [values])
    except CONVERSION_ERRORS:
        return opaque(event.data, "values")
    return half


def _count(undecoded: Counter[tuple[str, str]], members: Iterable[Item]) -> None:
    for item in members:
        if isinstance(item, Decoded):
            for half in (item.request, item.response):
                if half is not None and half.reason:
                    undecoded[item.deployment, half.reason] += 1
