"""Rows of all kinds, in the lake and in a search server, and questions that compare the two."""

import json
import math
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from hypothesis import strategies as st
from tests.adapters.conftest import Store, batch, labelled, row

from sidelight.adapters import (
    ElasticClient,
    ElasticInferences,
    ElasticStore,
    IndexOptions,
    Joined,
    QueryError,
    Scores,
)
from sidelight.payloads import Batch, Inference

NUMBERS: list[Any] = [0.0, -0.0, 0.1, 1.0, -2.5, 1e300, 5e-324, 3.0, 16777217.0]
INTEGERS: list[Any] = [0, 1, -3, (1 << 53) - 1, 1 << 53, (1 << 53) + 1, -(1 << 60), (1 << 63) - 1]
TEXTS = ["", "a", "A", "ab", "a*b", "a?b", "a%b", "a_b", "a\\b", "ü", "\U0001f600x", "true", "1"]
LONG = ["x" * 1030, "\U0001f600" * 600, "x" * 513]
DEPLOYMENTS = ["prod/a-b", "prod-a/b", "Prod/Ü b*/c"]
VERSIONS = [None, "1", "2", "v" * 1500]

_DAY_MINUTES = 24 * 60
_N_INFERENCES = 160
_LABELS: list[Any] = [0, 1, 1.5, "yes", "", True, False, None, [1], {"a": 1}]
_LABELS += ["z" * 2000, (1 << 53) + 1, -0.0, 1 << 70, -(10**400), math.nan]
_LABELS += [{"b": [1 << 70]}, [math.inf]]

# By layout: the columns of a payload, with their types and what stands in them.
_LAYOUTS: list[dict[str, tuple[pa.DataType, list[Any]]]] = [
    {
        "features.n": (pa.float64(), [*NUMBERS, math.nan, math.inf, None]),
        "features.f": (pa.float32(), [0.1, 0.0, -0.0, 1.5, 16777216.0, math.nan, None]),
        "features.i": (pa.int64(), [*INTEGERS, None]),
        "features.t": (pa.string(), [*TEXTS, *LONG, None]),
        "features.b": (pa.bool_(), [True, False, None]),
        "features.l": (pa.list_(pa.float64()), [[1.0, None], [], None]),
        "features.mixed": (pa.string(), ["1", "a", "true", None]),
        "features.a.b*": (pa.float64(), [1.0, 2.0, None]),
        "outputs.y": (pa.float64(), [0.25, 0.5, None]),
    },
    {
        "features.n": (pa.int64(), [*INTEGERS, None]),
        "features.f": (pa.float64(), [0.1, 0.10000000149011612, 1.5, None]),
        "features.i": (pa.uint64(), [1, 1 << 53, (1 << 64) - 1, None]),
        "features.mixed": (pa.float64(), [1.0, 2.5, None]),
        "features.t": (pa.string(), [*TEXTS, None]),
        "features.s": (pa.struct([("x", pa.int64())]), [{"x": 1}, None]),
        "features.only": (pa.int8(), [1, None]),
        "outputs.y": (pa.string(), ["p", "q", None]),
    },
    {
        "features.mixed": (pa.bool_(), [True, False, None]),
        "features.i": (pa.int16(), [0, 1, -3, None]),
        "features.nothing": (pa.null(), [None]),
        "features.raw": (pa.binary(), [b"\xff", b"", None]),
        "outputs.y": (pa.float64(), [0.25, None]),
    },
]


class Both:
    """The same rows in the lake and in a server."""

    def __init__(
        self,
        folder: Path,
        connect: Callable[[], ElasticClient],
        refresh: Callable[[str], object],
        *,
        flavour: Literal["elasticsearch", "opensearch"] = "elasticsearch",
    ) -> None:
        prefix = f"m{random.getrandbits(40):x}"
        self._writer = ElasticStore(
            connect(),
            flavour=flavour,
            options=IndexOptions(prefix=prefix, replicas=0, keeps_long=True, max_fields=7),
        )
        self._folder = Store(folder)
        self._labels: dict[str, dict[tuple[str, int], dict[str, Any]]] = {}
        self.lake = self._folder.queries
        self.search = ElasticInferences(connect(), prefix=prefix)
        chance = random.Random(20)
        for batches in _batches(chance):
            self._add(batches, chance)
        refresh(prefix)

    def close(self) -> None:
        self.search.close()
        self._writer.close()
        self._folder.close()

    def _add(self, batches: list[Batch], chance: random.Random) -> None:
        scores = [_scores(each, chance) for each in batches]
        self._folder.add(*batches)
        self._folder.documents.put(
            self._folder.lake.stage_scores(
                [found for found, _ in scores], first=len(self._folder.documents.stored), last=0
            )
        )
        self._label(_labels(batches, chance))
        joined = {
            name: Joined(
                labels=self._labels.get(name, {}),
                scores={key: value for _, each in scores for key, value in each.items()},
            )
            for name in {each.deployment for each in batches}
        }
        outcomes = self._writer.write(batches, joined)
        assert "refused" not in outcomes
        later = _labels(batches, chance)
        self._label(later)
        for name, labels in later.items():
            # As the consumer does: all labels of a row, with those that it had.
            whole = {place: self._labels[name][place] for place in labels}
            assert self._writer.label(name, whole)["refused"] == 0

    def _label(self, labels: dict[str, dict[tuple[str, int], dict[str, Any]]]) -> None:
        for name, each in labels.items():
            known = self._labels.setdefault(name, {})
            for (request_id, number), values in each.items():
                place = request_id, number
                known[place] = {**known.get(place, {}), **values}
                document = labelled(name, request_id, number, known[place])
                self._folder.documents.put([document])


def _batches(chance: random.Random) -> Iterator[list[Batch]]:
    rows: dict[tuple[int, int, int], list[dict[str, Any]]] = {}
    for number in range(_N_INFERENCES):
        deployment, layout = chance.randrange(3), chance.randrange(3)
        orphan = chance.choice([None, None, None, "request", "response"])
        minutes = chance.choice([0, 1, 2.5, _DAY_MINUTES, 3 * _DAY_MINUTES])
        facts = {
            "version": chance.choice(VERSIONS),
            "component": chance.choice([None, "predictor"]),
            "status": chance.choice([200, 500, None]),
            "latency_ms": chance.choice([0.0, 1.5, 1000.0, None]),
            "synthetic": chance.random() < 0.2,
            "tags": chance.choice([None, '{"a":{"b":[1,null]}}']),
        }
        name = f"i{number:03d}"
        rows.setdefault((0, deployment, layout), []).extend(
            _inference(name, minutes, layout, chance, orphan=orphan, **facts)
        )
        if orphan and chance.random() < 0.7:
            # The pair has another time, and maybe fewer rows.
            again = minutes if chance.random() < 0.5 else minutes + _DAY_MINUTES
            rows.setdefault((1, deployment, layout), []).extend(
                _inference(name, again, layout, chance, orphan=None, revision=1, **facts)
            )
    for revision in (0, 1):
        yield [
            batch(
                some,
                deployment=DEPLOYMENTS[deployment],
                types={name: kind for name, (kind, _) in _LAYOUTS[layout].items()},
            )
            for (of, deployment, layout), some in rows.items()
            if of == revision
        ]


def _inference(
    name: str, minutes: float, layout: int, chance: random.Random, **facts: Any
) -> list[dict[str, Any]]:
    return [
        row(
            name,
            minutes,
            row=number,
            **facts,
            **{column: chance.choice(of) for column, (_, of) in _LAYOUTS[layout].items()},
        )
        for number in range(chance.choice([1, 1, 1, 2, 5]))
    ]


def _scores(
    rows: Batch, chance: random.Random
) -> tuple[Scores, dict[tuple[str, int, int], tuple[float | None, float | None, bool | None]]]:
    scores = [chance.choice([0.5, 2.0, math.nan, 7.25]) for _ in range(len(rows))]
    found = Scores.of(rows, outlier_score=scores, p_value=scores, outlier=[False] * len(rows))
    columns = [found.records.column(name).to_pylist() for name in ("id", "row", "revision")]
    values = found.records.column("outlier_score").to_pylist()
    places = zip(*columns, strict=True)
    return found, {
        place: (value, value, False) for place, value in zip(places, values, strict=True)
    }


def _labels(
    batches: list[Batch], chance: random.Random
) -> dict[str, dict[tuple[str, int], dict[str, Any]]]:
    found: dict[str, dict[tuple[str, int], dict[str, Any]]] = {}
    for each in batches:
        places = zip(
            each.records.column("request_id").to_pylist(),
            each.records.column("row").to_pylist(),
            strict=True,
        )
        for place in places:
            if chance.random() < 0.3:
                labels = found.setdefault(each.deployment, {})
                labels[place] = {
                    "late": chance.choice(_LABELS),
                    **({"a.b": chance.choice([1, 2])} if chance.random() < 0.5 else {}),
                }
    return found


_NUMBERS = [*NUMBERS, *INTEGERS, 0.5, 0.25, 2.0, 1.5, (1 << 64) - 1, -(1 << 64), 1 << 100, 200, 500]
_SECTIONS = {
    "features": ["n", "f", "i", "t", "b", "l", "mixed", '"a.b*"', "s", "only", "nothing", "raw"],
    "outputs": ["y"],
    "labels": ["late", '"a.b"', "late"],
}
_COLUMNS = [f"{section}.{name}" for section, names in _SECTIONS.items() for name in names] + [
    *("status", "latency_ms", "outlier_score", "version", "request_id", "orphan", "synthetic"),
    *("protocol", "component", "endpoint", "id", "time", "features.unknown", "labels.unknown"),
]
_KINDS = {
    "features.t": "text",
    "features.b": "truth",
    "outputs.y": "text",
    "synthetic": "truth",
    "time": "time",
    **dict.fromkeys(("version", "request_id", "orphan", "protocol", "component", "id"), "text"),
}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


_LITERALS = {
    "number": st.sampled_from([repr(value) for value in _NUMBERS])
    | st.floats(-3, 3, allow_nan=False).map(repr),
    "text": st.sampled_from(
        [*TEXTS, *LONG, "p", "q", "yes", "i010", "request", "predictor", "v" * 1500, "request-i003"]
    ).map(_quoted),
    "truth": st.sampled_from(["true", "false"]),
    "time": st.sampled_from(["'2013-01-01'", "'2013-01-02T00:00:00Z'", "'2013-01-01T00:01:00Z'"]),
}
_PATTERNS = st.sampled_from(["%", "a%", "%b", "_", "a_b", "%x%", "i0_5", "\\%", "%*%", "", "%%__"])


@st.composite
def _predicate(draw: st.DrawFn) -> str:
    column = draw(st.sampled_from(_COLUMNS))
    kind = _KINDS.get(column, "number")
    if column.endswith(("mixed", "late")) or draw(st.integers(0, 40)) == 0:
        kind = draw(st.sampled_from(sorted(_LITERALS)))
    value = _LITERALS[kind] if draw(st.integers(0, 15)) else st.just("null")
    shape = draw(st.integers(0, 9))
    word = draw(st.sampled_from(["", "not "]))
    if shape == 0:
        return f"{column} is {word}null"
    if shape == 1:
        return f"{column} {word}between {draw(value)} and {draw(value)}"
    if shape == 2:
        return f"{column} {word}in ({', '.join(draw(st.lists(value, min_size=1, max_size=3)))})"
    if shape == 3 and kind == "text":
        return f"{column} {word}like {_quoted(draw(_PATTERNS))}"
    if shape == 4 and kind == "text":
        return f"{column} {word}like 'a!%!_%' escape '!'"
    return f"{column} {draw(st.sampled_from(['=', '!=', '<', '<=', '>', '>=']))} {draw(value)}"


EXPRESSIONS = st.recursive(
    _predicate(),
    lambda inner: (
        st.builds("not ({})".format, inner)
        | st.builds("({} and {})".format, inner, inner)
        | st.builds("({} or {})".format, inner, inner)
    ),
    max_leaves=4,
)
_TIMES = st.none() | st.sampled_from(["2013-01-01T00:01:00Z", "2013-01-02", "2013-01-03T00:00:01Z"])
QUESTIONS = st.fixed_dictionaries(
    {
        "deployment": st.sampled_from([*DEPLOYMENTS, None, DEPLOYMENTS[0]]),
        "version": st.sampled_from([None, None, None, *VERSIONS[1:]]),
        "from_": _TIMES,
        "to": _TIMES,
        "order": st.sampled_from(["time", "-time"]),
        "limit": st.sampled_from([1000, 1000, 23]),
    }
)


def shown(item: Inference) -> dict[str, Any]:
    """Return an inference as JSON has it: a label that is not finite is null."""
    value: dict[str, Any] = json.loads(json.dumps(item.to_json()), parse_constant=lambda _: None)
    return value


def answer(store: Any, **question: Any) -> Any:
    """Return every page of an answer, or what was refused."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    try:
        while True:
            items, cursor = store.find(**question, cursor=cursor)
            found += [shown(item) for item in items]
            if cursor is None:
                return found
    except QueryError as error:
        # Names that may have been meant come in no promised order.
        return type(error).__name__, re.sub(" such as .*", "", str(error)), error.got


def names(found: Any) -> Any:
    """Return the ids of an answer, or what was refused."""
    return [item["id"] for item in found] if isinstance(found, list) else found
