"""Exports: three formats that say the same, a stream that holds little, no end that is a lie."""

import dataclasses
import io
import json
import math
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sidelight.adapters import LakeError, QueryError
from sidelight.adapters._query_export import EXPORTS, Export
from sidelight.adapters._query_stream import portion, walk
from sidelight.payloads import Inference, InferenceRow

_FIELD = re.compile(r'("(?:[^"]|"")*"|[^",\r\n]*)(,|\r\n)')


def csv_rows(text: str) -> list[dict[str, Any]]:
    """Read CSV as the documentation says that it is written."""
    lines: list[list[Any]] = [[]]
    for field, end in _FIELD.findall(text):
        lines[-1].append(
            field[1:-1].replace('""', '"')
            if field.startswith('"')
            else json.loads(field)
            if field
            else None
        )
        if end == "\r\n":
            lines.append([])
    header, *rows = lines[:-1]
    return [dict(zip(header, row, strict=True)) for row in rows]


def parquet_rows(data: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(data)).to_pylist()
    return rows


texts = st.text(st.sampled_from(["a", '"', ",", "\n", "\r", "'", "=", "é", "\x00", " ", "1"]))
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(),
    texts,
    st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.none(), max_size=3),
)
names = st.sampled_from(["features.x", "features.a b", 'features."q",', "outputs.y", "outputs.é"])
columns = {
    "number": st.none() | st.floats() | st.integers(-(2**53), 2**53),
    "text": st.none() | texts,
    "flag": st.none() | st.booleans(),
    "list": st.none() | st.lists(st.none() | st.floats(), max_size=3),
}
files = st.lists(
    st.lists(
        st.fixed_dictionaries(
            {
                "features.x": columns["number"],
                "features.a b": columns["text"],
                'features."q",': columns["flag"],
                "outputs.y": columns["list"],
            }
        ),
        min_size=1,
        max_size=4,
    ),
    max_size=3,
)
labels = st.dictionaries(st.sampled_from(["late", "a,b"]), values, max_size=2)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(content=files, label=labels, order=st.sampled_from(["time", "-time"]))
@example(content=[], label={}, order="time")
@example(content=[[{"features.x": None}]], label={"late": math.inf}, order="time")
def test_three_formats_and_the_list_say_the_same(
    samples: SimpleNamespace, content: list[list[dict[str, Any]]], label: dict[str, Any], order: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = samples.Store(Path(folder))
        for number, rows in enumerate(content):
            # Two rows of each inference, the last one maybe alone.
            stored = [
                samples.row(f"i{number}-{place // 2}", number, row=place % 2, **values)
                for place, values in enumerate(rows)
            ]
            store.add(samples.batch(stored, types={"outputs.y": pa.list_(pa.float64())}))
        store.documents.put([samples.labelled("prod/flights", "request-i0-0", 0, label)])

        # As the route writes them: a label that is not finite is null.
        listed = [
            json.loads(json.dumps(item.to_json()), parse_constant=lambda _: None)
            for item in store.queries.find(order=order, limit=1000)[0]
        ]
        found = {name: b"".join(store.queries.export(format=name, order=order)) for name in EXPORTS}
        store.close()

    assert [json.loads(line) for line in found["jsonl"].splitlines()] == listed
    expected = [flat(item, number) for item in listed for number in range(len(item["rows"]))]
    from_csv = csv_rows(found["csv"].decode())
    from_parquet = parquet_rows(found["parquet"])
    assert len(from_csv) == len(from_parquet) == len(expected)
    for row, as_csv, as_parquet in zip(expected, from_csv, from_parquet, strict=True):
        assert list(as_csv) == list(as_parquet)
        assert {name: as_csv[name] for name in row} == {
            name: json.dumps(value) if isinstance(value, list | dict) else value
            for name, value in row.items()
        }
        for name, value in row.items():
            same = as_parquet[name]
            if isinstance(same, str) and not isinstance(value, str):
                # A column of several kinds, as labels may be, is text.
                same = json.loads(same)
            assert same == value, name
        assert all(as_csv[name] is None for name in as_csv.keys() - row.keys())


def flat(item: dict[str, Any], number: int) -> dict[str, Any]:
    """Return the columns of one row, as docs/querying.md names them."""
    row = item["rows"][number]
    facts = {
        name: item[name]
        for name in item.keys() - {"rows", "raw", "tags"}
        if not isinstance(item[name], dict)
    }
    return {
        **facts,
        **item["raw"],
        "row": number,
        "outlier_score": row["outlier_score"],
        **{
            f"{section}.{name}": value
            for section in ("features", "outputs", "labels")
            for name, value in row[section].items()
        },
    }


def _labelled(store: Any, samples: SimpleNamespace, *labels: Any) -> None:
    store.add(samples.batch([samples.row(f"i{number}", number) for number in range(len(labels))]))
    store.documents.put(
        [
            samples.labelled("prod/flights", f"request-i{number}", 0, {"y": label})
            for number, label in enumerate(labels)
        ]
    )


@pytest.mark.parametrize(
    ("label", "parquet"),
    [
        pytest.param(2**63 - 1, 2.0**63, id="64 bits"),
        pytest.param(2**64, 2.0**64, id="more"),
        pytest.param(-(2**63) - 1, -(2.0**63), id="less"),
        pytest.param(10**400, None, id="beyond a double"),
        pytest.param([2**70], "[1180591620717411303424]", id="in a list"),
    ],
)
def test_a_label_beyond_64_bits_is_exported_with_all_its_digits(
    store: Any, samples: SimpleNamespace, label: Any, parquet: Any
) -> None:
    _labelled(store, samples, label)

    found = {name: b"".join(store.queries.export(format=name)) for name in EXPORTS}

    assert json.loads(found["jsonl"])["rows"][0]["labels"] == {"y": label}
    (line,) = csv_rows(found["csv"].decode())
    assert line["labels.y"] == (json.dumps(label) if isinstance(label, list) else label)
    assert [row["labels.y"] for row in parquet_rows(found["parquet"])] == [parquet]


@pytest.mark.parametrize(
    ("label", "plain", "text"),
    [
        pytest.param(math.nan, None, None, id="nan"),
        pytest.param(-math.inf, None, None, id="infinite"),
        pytest.param([1.5, math.nan], [1.5, None], "[1.5, null]", id="in a list"),
        pytest.param({"a": [math.inf]}, {"a": [None]}, '{"a": [null]}', id="deeper"),
        pytest.param({"a": math.nan, "b": 2**64}, {"a": None, "b": 2**64}, None, id="both"),
    ],
)
def test_a_label_that_is_not_finite_is_null_in_every_format(
    store: Any, samples: SimpleNamespace, label: Any, plain: Any, text: str | None
) -> None:
    _labelled(store, samples, label)
    text = text if text or plain is None else json.dumps(plain)

    found = {name: b"".join(store.queries.export(format=name)) for name in EXPORTS}

    assert b"NaN" not in found["jsonl"]
    assert json.loads(found["jsonl"])["rows"][0]["labels"] == {"y": plain}
    assert [row["labels.y"] for row in csv_rows(found["csv"].decode())] == [text]
    assert [row["labels.y"] for row in parquet_rows(found["parquet"])] == [text]


def test_a_label_that_is_not_finite_is_null_among_texts(
    store: Any, samples: SimpleNamespace
) -> None:
    _labelled(store, samples, "a", math.nan)

    rows = parquet_rows(b"".join(store.queries.export(format="parquet")))

    assert [row["labels.y"] for row in rows] == ["a", None]


def test_tags_that_are_not_finite_are_null_in_tables() -> None:
    item = dataclasses.replace(inference("a", {}), tags={"t": [math.nan]})
    export = Export(pages=lambda: iter([[item]]), columns=dict)

    found = {name: b"".join(EXPORTS[name](export)) for name in EXPORTS}

    assert json.loads(found["jsonl"])["tags"] == {"t": [None]}
    assert [row["tags"] for row in csv_rows(found["csv"].decode())] == ['{"t": [null]}']
    assert [row["tags"] for row in parquet_rows(found["parquet"])] == ['{"t": [null]}']


@pytest.mark.parametrize("where", ["labels.y > 1e308", "labels.y >= 1 and labels.y is not null"])
def test_a_label_beyond_every_double_is_larger_than_it(
    store: Any, samples: SimpleNamespace, where: str
) -> None:
    _labelled(store, samples, 10**400, -(10**400), 0)

    assert [item.id for item in store.queries.find(where=where)[0]] == ["i0"]


@pytest.mark.parametrize("name", ["csv", "parquet"])
def test_an_empty_table_has_its_header(store: Any, name: Any) -> None:
    data = b"".join(store.queries.export(format=name, deployment="prod/nobody"))

    header = (
        data.decode().rstrip("\r\n").replace('"', "").split(",")
        if name == "csv"
        else pq.read_table(io.BytesIO(data)).column_names
    )
    assert header[:4] == ["id", "row", "deployment", "version"]


def test_nothing_is_no_line(store: Any) -> None:
    assert b"".join(store.queries.export(format="jsonl")) == b""


@pytest.mark.parametrize("limit", [1, 3, 250])
def test_an_export_stops_at_its_limit(store: Any, samples: SimpleNamespace, limit: int) -> None:
    store.add(samples.batch([samples.row(f"i{n:03d}", n) for n in range(240)]))

    lines = b"".join(store.queries.export(limit=limit, order="-time")).splitlines()

    expected = [f"i{n:03d}" for n in reversed(range(240))][:limit]
    assert [json.loads(line)["id"] for line in lines] == expected
    with pytest.raises(QueryError, match="at least 1"):
        store.queries.export(limit=0)


def test_what_is_stored_meanwhile_is_not_exported(store: Any, samples: SimpleNamespace) -> None:
    store.add(samples.batch([samples.row(f"i{n:03d}", n) for n in range(240)]))
    stream = store.queries.export(format="jsonl")
    first = next(stream)

    store.add(samples.batch([samples.row("new", 500, **{"features.new": 1.0})]))

    assert len((first + b"".join(stream)).splitlines()) == 240


def test_an_export_goes_on_when_compaction_takes_its_files(
    store: Any, samples: SimpleNamespace
) -> None:
    for start in range(0, 240, 30):
        rows = [samples.row(f"i{n:03d}", n, **{"features.x": n}) for n in range(start, start + 30)]
        store.add(samples.batch(rows))
    stream = store.queries.export(format="csv")
    parts = [next(stream), next(stream)]

    compaction = store.lake.compact(store.queries.manifest, min_files=2)
    store.documents.put(compaction.documents)
    store.lake.remove(compaction.obsolete)

    rows = csv_rows((b"".join([*parts, *stream])).decode())
    assert [row["id"] for row in rows] == [f"i{n:03d}" for n in range(240)]


@pytest.mark.parametrize("name", ["csv", "parquet"])
def test_a_column_that_the_header_does_not_have_ends_a_table_with_an_error(name: Any) -> None:
    def pages() -> Iterator[Sequence[Inference]]:
        yield [inference("a", {"x": 1.0})]
        yield [inference("b", {"x": 1.0, "new": 2.0})]

    export = Export(pages=pages, columns=lambda: {"features.x": pa.float64()})

    with pytest.raises(LakeError, match=r"features\.new"):
        list(EXPORTS[name](export))


def test_a_column_that_changes_its_type_ends_a_table_with_an_error() -> None:
    def pages() -> Iterator[Sequence[Inference]]:
        yield [inference("a", {"x": "text"})]

    export = Export(pages=pages, columns=lambda: {"features.x": pa.float64()})

    with pytest.raises(LakeError, match=r"features\.x"):
        list(EXPORTS["parquet"](export))


def inference(name: str, features: dict[str, Any], rows: int = 1) -> Inference:
    return Inference(
        id=name,
        deployment="prod/flights",
        version=None,
        component=None,
        request_id=name,
        time="2013-01-01T00:00:00.000000Z",
        latency_ms=None,
        status=None,
        protocol="v2",
        rows=(InferenceRow(features=features),) * rows,
    )


@pytest.mark.parametrize(
    ("features", "rows", "expected"),
    [
        pytest.param({"x": 1.0}, 1, 1000, id="small"),
        pytest.param({f"x{n}": 1.0 for n in range(20)}, 1000, 23, id="many rows"),
        pytest.param({"x": [1.0] * 100_000}, 8, 1, id="long lists"),
    ],
)
def test_pages_shrink_where_inferences_are_large(
    features: dict[str, Any], rows: int, expected: int
) -> None:
    sizes: list[int] = []

    def page(_: Any, size: int) -> Any:
        sizes.append(size)
        end = SimpleNamespace() if len(sizes) < 6 else None
        return [inference("a", features, rows)] * size, end

    for _ in walk(page):
        pass

    assert sizes[0] == 100
    assert sizes[-1] == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        pytest.param(1, [50, 200, 750], id="small"),
        pytest.param(4_000, [50, 200, 249, 1], id="large"),
        pytest.param(100_000, [50], id="too large"),
    ],
)
def test_a_page_ends_where_it_is_too_much(cells: int, expected: list[int]) -> None:
    sizes: list[int] = []

    def read(hits: Sequence[int]) -> list[Inference]:
        sizes.append(len(hits))
        return [inference("a", dict.fromkeys(map(str, range(cells)), 1.0)) for _ in hits]

    items, n_read = portion(read, range(1000))

    assert sizes == expected
    assert len(items) == n_read == sum(expected)


def test_parquet_leaves_in_row_groups() -> None:
    def pages() -> Iterator[Sequence[Inference]]:
        for number in range(5):
            yield [inference(f"{number}-{n}", {"x": float(n)}, 100) for n in range(300)]

    export = Export(pages=pages, columns=lambda: {"features.x": pa.float64()})
    parts = list(EXPORTS["parquet"](export))

    file = pq.ParquetFile(io.BytesIO(b"".join(parts)))
    assert file.metadata.num_rows == 150_000
    assert file.metadata.num_row_groups == 5
    assert len(parts) == 6


def test_parquet_begins_with_the_first_page() -> None:
    n_read = 0

    def pages() -> Iterator[Sequence[Inference]]:
        nonlocal n_read
        for number in range(5):
            n_read += 1
            yield [inference(str(number), {"x": 1.0})]

    parts = EXPORTS["parquet"](Export(pages=pages, columns=lambda: {"features.x": pa.float64()}))

    assert (next(parts), n_read) == (b"PAR1", 1)
    assert len(pq.read_table(io.BytesIO(b"PAR1" + b"".join(parts)))) == 5
