"""Inferences become columnar batches, once; nobody behind it sees wire formats."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sidelight.adapters._batches import Decoded, build_batch
from sidelight.adapters._decoding_columns import CONVERSION_ERRORS, arrays, registered_names
from sidelight.adapters.dialects import DIALECTS, Dialect, Half, Layout, Side, opaque, read_payload
from sidelight.logger import Pair
from sidelight.payloads import Batch, Event, Schema

log = logging.getLogger(__name__)

GroupKey = tuple[str, Layout | None, Layout | None]

_INTERNAL: Final = (*CONVERSION_ERRORS, LookupError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """What one step's pairs became.

    Parameters
    ----------
    batches : list of Batch
        In the order in which their first inference was completed; rows within a batch in the
        order of completion.
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

    def decode(self, pairs: Iterable[Pair]) -> Decoding:
        """Return batches that hold every pair, whatever its payloads are."""
        items = [
            Decoded(
                pair,
                self._half(pair.request, "request"),
                self._half(pair.response, "response"),
            )
            for pair in pairs
        ]
        batches: list[Batch] = []
        undecoded: Counter[tuple[str, str]] = Counter()
        for (deployment, _, _), group in _grouped(items).items():
            for batch, members in self._batches(deployment, group):
                batches.append(batch)
                _count(undecoded, deployment, members)
        return Decoding(batches=batches, undecoded=undecoded)

    def _half(self, event: Event | None, side: Side) -> Half | None:
        if event is None:
            return None
        try:
            return read_payload(
                event.data,
                side,
                self._dialects,
                coding=event.extensions.get("contentencoding", ""),
                max_inflated_bytes=self._max_inflated_bytes,
            )
        except _INTERNAL:
            # A dialect met what it did not foresee. The inference must not be lost for that.
            log.exception("payload not decoded", extra={"ref": str(event.ref)})
            return opaque(event.data, "unforeseen")

    def _batches(
        self, deployment: str, group: list[Decoded]
    ) -> Iterable[tuple[Batch, list[Decoded]]]:
        names = registered_names(self._schema(deployment) if self._schema else None)
        try:
            return [(build_batch(deployment, group, names), group)]
        except CONVERSION_ERRORS:
            pass
        # One payload holds what its datatype does not allow. It becomes opaque, the others stay.
        checked = [_checked(item) for item in group]
        built = []
        for members in _grouped(checked).values():
            try:
                built.append((build_batch(deployment, members, names), members))
            except CONVERSION_ERRORS:
                built += [(build_batch(deployment, [item], names), [item]) for item in members]
        return built


def _grouped(items: Iterable[Decoded]) -> dict[GroupKey, list[Decoded]]:
    groups: dict[GroupKey, list[Decoded]] = {}
    for item in items:
        request, response = item.request, item.response
        key = (
            item.pair.key.deployment,
            request and request.layout,
            response and response.layout,
        )
        groups.setdefault(key, []).append(item)
    return groups


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


def _count(
    undecoded: Counter[tuple[str, str]], deployment: str, members: Iterable[Decoded]
) -> None:
    for item in members:
        for half in (item.request, item.response):
            if half is not None and half.reason:
                undecoded[deployment, half.reason] += 1
