"""Audit queries: whole inferences, the newest revision, pages that lose and repeat nothing."""

import base64
import csv
import io
import json
import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.adapters import LakeError, QueryError, Scores, WhereError
from sidelight.adapters._query_time import format_time, parse_time


def test_an_inference_is_shown_as_it_was_stored(store: Any, samples: SimpleNamespace) -> None:
    row = samples.row(
        "a",
        version="v7",
        component="predictor",
        latency_ms=math.nan,
        status=200,
        orphan="request",
        synthetic=True,
        tags='{"region": "eu"}',
        request_ref="0-1-0",
        **{
            "features.whole": 2**53 + 1,
            "features.single": 0.1,
            "features.missing": math.nan,
            "features.endless": -math.inf,
            "features.bytes": b"\x00\xff",
            "features.list": [1.0, None, math.inf],
            "features.text": "naïve\x00",
            "outputs.flag": True,
        },
    )
    types = {"features.single": pa.float32(), "features.list": pa.list_(pa.float64())}
    store.add(samples.batch([row], types=types))

    (found,), following = store.queries.find()

    assert following is None
    assert store.queries.get("a") == found
    value = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert value["rows"][0].pop("features") == {
        "whole": 2**53 + 1,
        "single": pytest.approx(0.1, rel=1e-7),
        "missing": None,
        "endless": None,
        "bytes": "AP8=",
        "list": [1.0, None, None],
        "text": "naïve\x00",
    }
    assert value == {
        "id": "a",
        "deployment": "prod/flights",
        "version": "v7",
        "component": "predictor",
        "request_id": "request-a",
        "time": "2013-01-01T00:00:00.000000Z",
        "latency_ms": None,
        "status": 200,
        "protocol": "v2",
        "rows": [{"outputs": {"flag": True}, "labels": {}, "outlier_score": None}],
        "orphan": "request",
        "synthetic": True,
        "tags": {"region": "eu"},
        "raw": {"request_ref": "0-1-0", "response_ref": None},
    }


def test_an_inference_matches_when_one_row_does_and_comes_with_all(
    store: Any, samples: SimpleNamespace
) -> None:
    rows = [samples.row("a", row=number, **{"features.x": float(number)}) for number in range(3)]
    store.add(samples.batch([*rows, samples.row("b", **{"features.x": 9.0})]))

    (found,), _ = store.queries.find(where="features.x = 1")

    assert [row.features["x"] for row in found.rows] == [0.0, 1.0, 2.0]
    assert store.queries.count(where="features.x < 5") == 1


def test_filters_and_their_bounds(store: Any, samples: SimpleNamespace) -> None:
    for number in range(4):
        version = "v1" if number % 2 else "v2"
        store.add(
            samples.batch([samples.row(f"i{number}", number, version=version)]),
            samples.batch([samples.row(f"o{number}", number)], deployment="prod/other"),
        )

    assert store.ids(deployment="prod/flights") == ["i3", "i2", "i1", "i0"]
    assert store.ids(version="v1", order="time") == ["i1", "i3"]
    assert store.ids(from_="2013-01-01T00:01:00Z", to="2013-01-01T00:02:00Z") == ["o1", "i1"]
    assert store.ids(from_="2013-01-01T02:01:00+02:00", deployment="prod/other") == [
        "o3",
        "o2",
        "o1",
    ]
    assert store.ids(to="2013-01-01") == []
    assert store.ids(deployment="prod/nobody") == []
    assert store.queries.count(deployment="prod/other", from_="2013-01-01T00:02:00Z") == 2


def test_the_newest_revision_wins_and_only_that_may_match(
    store: Any, samples: SimpleNamespace
) -> None:
    orphan = [samples.row("a", 1, row=n, orphan="response", **{"outputs.y": 0.5}) for n in range(3)]
    store.add(samples.batch(orphan))
    store.add(samples.batch([samples.row("b", 2, **{"features.x": 1.0, "outputs.y": 0.1})]))
    pair = [
        samples.row("a", 9, row=n, revision=1, **{"features.x": 2.0, "outputs.y": 0.9})
        for n in (0, 1)
    ]
    store.add(samples.batch(pair))

    for found in (store.queries.get("a"), store.queries.find()[0][0]):
        assert (found.orphan, found.time, len(found.rows)) == (
            None,
            "2013-01-01T00:09:00.000000Z",
            2,
        )
    assert store.ids() == ["a", "b"]
    assert store.ids(where="outputs.y = 0.5") == []
    assert store.ids(where="orphan is not null") == []
    assert store.ids(to="2013-01-01T00:05:00Z") == ["b"]
    assert store.queries.count() == 2
    assert store.queries.count(where="outputs.y >= 0.5") == 1


def test_labels_are_joined_and_can_be_asked_for(store: Any, samples: SimpleNamespace) -> None:
    store.add(samples.batch([samples.row("a", 1, row=0), samples.row("a", 1, row=1)]))
    store.add(samples.batch([samples.row("b", 2)]))
    store.add(
        samples.batch([samples.row("a2", 3, request_id="request-a")], deployment="prod/other")
    )
    assert store.ids(where="labels.late = true") == []

    store.documents.put(
        [
            samples.labelled("prod/flights", "request-a", 1, {"late": True, "why": "snow"}),
            samples.labelled("prod/flights", "request-b", 0, {"late": "no", "why": None}),
            samples.labelled("prod/flights", "never-came", 0, {"late": 3, "list": [1]}),
        ]
    )

    assert [row.labels for row in store.queries.get("a").rows] == [
        {},
        {"late": True, "why": "snow"},
    ]
    assert store.ids(where="labels.late = true") == ["a"]
    assert store.ids(where="labels.late in ('no', 3)") == ["b"]
    assert store.ids(where="labels.why is null", deployment="prod/flights") == ["b", "a"]
    assert store.ids(where="labels.list is not null") == []
    with pytest.raises(WhereError, match=r"labels\.late"):
        store.ids(where="labels.lat = 1")
    with pytest.raises(WhereError, match="a 'string'"):
        store.ids(where="labels.why = 1")


def test_columns_may_come_go_and_change_their_type(store: Any, samples: SimpleNamespace) -> None:
    values: list[dict[str, Any]] = [
        {"features.x": 1},
        {"features.x": "1"},
        {"features.x": 1.5, "features.new": True},
        {"features.x": [1.0]},
        {"features.x": None},
        {"outputs.y": 1},
        {"features.x": True},
    ]
    for number, value in enumerate(values):
        store.add(samples.batch([samples.row(f"i{number}", number, **value)]))

    found = store.queries.find(order="time")[0]

    assert [dict(item.rows[0].features) for item in found] == [
        {"x": 1},
        {"x": "1"},
        {"x": 1.5, "new": True},
        {"x": [1.0]},
        {"x": None},
        {},
        {"x": True},
    ]
    assert store.ids(where="features.x >= 1") == ["i2", "i0"]
    assert store.ids(where="features.x = '1'") == ["i1"]
    assert store.ids(where="features.x in (1, '1', true)") == ["i6", "i1", "i0"]
    assert store.ids(where="not features.x = 1") == ["i2"]
    assert store.ids(where="features.x is null") == ["i5", "i4"]
    assert store.ids(where="features.new = true and features.x < 2") == ["i2"]


def test_single_precision_is_shown_as_the_shortest_number(
    store: Any, samples: SimpleNamespace
) -> None:
    single = [0.1, 16777216.0, -1.5e-42, 3.4028234663852886e38, math.nan, None]
    types = {"features.x": pa.float32(), "features.list": pa.list_(pa.float32())}
    rows = [
        samples.row(f"i{number}", number, **{"features.x": value, "features.list": [value, 0.3]})
        for number, value in enumerate(single)
    ]
    store.add(samples.batch(rows, types=types))

    found = store.queries.find(order="time")[0]

    shown = [0.1, 16777216.0, -1.5e-42, 3.4028235e38, None, None]
    assert [item.rows[0].features["x"] for item in found] == shown
    assert [item.rows[0].features["list"] for item in found] == [[value, 0.3] for value in shown]
    assert store.ids(where="features.x = 0.1") == ["i0"]


ODD = [
    "a b",
    'q"uote',
    "it's",
    "sla/sh",
    "ünï",
    "a\x00b",
    "new\nline",
    "a.b",
    "A",
    "*",
    "c0",
    "f.c1",
]


def test_any_name_of_a_column_can_be_stored_and_asked(store: Any, samples: SimpleNamespace) -> None:
    store.add(
        samples.batch([samples.row("a", **{f"features.{name}": i for i, name in enumerate(ODD)})])
    )
    store.add(samples.batch([samples.row("b", **{"features.a": -1, "features.A": "text"})]))
    store.add(samples.batch([samples.row("c", **{"features.A": "text", "features.a": -2})]))

    for number, name in enumerate(ODD):
        quoted = name.replace('"', '""')
        assert store.ids(where=f'features."{quoted}" = {number}') == ["a"]
    assert store.ids(where="features.a < 0") == ["c", "b"]
    assert store.ids(where="features.A = 'text' and features.a = -2") == ["c"]
    assert dict(store.queries.get("c").rows[0].features) == {"A": "text", "a": -2}


@pytest.mark.parametrize("name", ["we[i]rd * folder?", 'it\'s "quoted"', "ünï"])
def test_any_data_folder_can_be_read(tmp_path: Path, samples: SimpleNamespace, name: str) -> None:
    store = samples.Store(tmp_path / name)
    store.add(samples.batch([samples.row("a", **{"features.x": 1})]))

    assert store.ids(where="features.x = 1") == ["a"]
    assert store.queries.get("a") is not None
    store.close()


@settings(max_examples=30, deadline=None)
@given(
    minutes=st.lists(st.integers(0, 3), min_size=1, max_size=25),
    n_files=st.integers(1, 12),
    limit=st.integers(1, 7),
    order=st.sampled_from(["time", "-time"]),
)
def test_pages_hold_every_inference_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    samples: SimpleNamespace,
    minutes: list[int],
    n_files: int,
    limit: int,
    order: str,
) -> None:
    store = samples.Store(tmp_path_factory.mktemp("lake"))
    for index in range(n_files):
        rows = [
            samples.row(f"i{number:02d}", minute, row=row)
            for number, minute in enumerate(minutes)
            if number * 7 % n_files == index
            for row in range(1 + number % 3)
        ]
        if rows:
            store.add(samples.batch(rows))

    found = store.all_ids(order=order, limit=limit)

    expected = sorted((minute, f"i{number:02d}") for number, minute in enumerate(minutes))
    if order == "-time":
        expected.reverse()
    assert found == [name for _, name in expected]
    store.close()


def test_pages_stay_while_new_inferences_arrive(store: Any, samples: SimpleNamespace) -> None:
    for number in range(6):
        store.add(samples.batch([samples.row(f"i{number}", number)]))
    first, cursor = store.queries.find(limit=2)
    store.add(samples.batch([samples.row("new", 99)]))

    second, cursor = store.queries.find(limit=2, cursor=cursor)
    third, end = store.queries.find(limit=2, cursor=cursor)

    assert [item.id for item in [*first, *second, *third]] == ["i5", "i4", "i3", "i2", "i1", "i0"]
    assert end is None


def test_a_page_of_inferences_with_many_rows(store: Any, samples: SimpleNamespace) -> None:
    for number in range(3):
        rows = [samples.row(f"i{number}", number, row=row) for row in range(200)]
        store.add(samples.batch(rows))

    items, cursor = store.queries.find(limit=2)

    assert [(item.id, len(item.rows)) for item in items] == [("i2", 200), ("i1", 200)]
    assert [item.id for item in store.queries.find(limit=2, cursor=cursor)[0]] == ["i0"]


def test_a_page_reads_only_the_files_that_it_needs(store: Any, samples: SimpleNamespace) -> None:
    keys = [
        store.add(samples.batch([samples.row(f"i{number}", number)]))[0].key for number in range(60)
    ]
    for key in keys[:30]:
        (store.folder / "lake" / key).write_bytes(b"unreadable")

    assert store.ids(limit=5) == ["i59", "i58", "i57", "i56", "i55"]
    assert store.ids(from_="2013-01-01T00:40:00Z", limit=1, order="time") == ["i40"]


@pytest.mark.parametrize(
    ("parameters", "what"),
    [
        ({"from_": "yesterday"}, "from"),
        ({"to": "2013-01-01T00:00:00"}, "to"),
        ({"from_": "2013-02-30"}, "from"),
        ({"order": "id"}, "order"),
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"cursor": "nonsense!"}, "cursor"),
        ({"cursor": "é"}, "cursor"),
        ({"cursor": "W10"}, "cursor"),
        ({"cursor": "////"}, "cursor"),
        ({"where": "features.y = 1"}, "where"),
        ({"where": "features.x = 'text'"}, "where"),
    ],
)
def test_what_cannot_be_understood_is_named(
    store: Any, samples: SimpleNamespace, parameters: dict[str, Any], what: str
) -> None:
    store.add(samples.batch([samples.row("a", **{"features.x": 1})]))

    with pytest.raises(QueryError) as caught:
        store.queries.find(**parameters)

    assert caught.value.what.startswith(what)
    assert caught.value.expected
    assert caught.value.got


def test_a_cursor_belongs_to_its_question(store: Any, samples: SimpleNamespace) -> None:
    store.add(samples.batch([samples.row("a"), samples.row("b", 1)]))
    _, cursor = store.queries.find(limit=1)

    with pytest.raises(QueryError, match="other filters"):
        store.queries.find(limit=1, cursor=cursor, order="time")
    with pytest.raises(QueryError, match="other filters"):
        store.queries.find(limit=1, cursor=cursor, version="v1")
    assert cursor.isascii()
    assert set(cursor) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param([0, "\ud800"], id="no Unicode"),
        pytest.param([1.5, "a"], id="half a microsecond"),
        pytest.param([0], id="too short"),
        pytest.param({}, id="no list"),
        pytest.param("[" * 100_000, id="deep"),
        pytest.param("9" * 5_000, id="long number"),
        pytest.param("\x80", id="no text"),
    ],
)
def test_a_forged_cursor_is_refused(store: Any, samples: SimpleNamespace, content: Any) -> None:
    store.add(samples.batch([samples.row("a", 1), samples.row("b", 2)]))
    _, cursor = store.queries.find(limit=1)
    question = json.loads(base64.urlsafe_b64decode(cursor + "=="))[-1]
    text = content
    if not isinstance(content, str):
        text = json.dumps([*content, question] if isinstance(content, list) else content)
    forged = base64.urlsafe_b64encode(text.encode("latin-1")).decode().rstrip("=")

    with pytest.raises(QueryError, match="cursor"):
        store.queries.find(limit=1, cursor=forged)


def test_a_cursor_with_any_time_is_a_place(store: Any, samples: SimpleNamespace) -> None:
    store.add(samples.batch([samples.row("a", 1), samples.row("b", 2)]))
    _, cursor = store.queries.find(limit=1)
    *_, question = json.loads(base64.urlsafe_b64decode(cursor + "=="))

    def found(time_us: int) -> list[str]:
        text = json.dumps([time_us, "x", question])
        forged = base64.urlsafe_b64encode(text.encode()).decode()
        return list(store.ids(cursor=forged.rstrip("=")))

    assert found(10**40) == ["b", "a"]
    assert found(-(10**40)) == []


def test_an_empty_lake_answers(store: Any) -> None:
    assert store.queries.find() == ([], None)
    assert store.queries.get("a") is None
    assert store.queries.count() == 0
    assert store.ids(where="features.x = 1 and labels.y = 2 and outlier_score > 1") == []
    assert b"".join(store.queries.export()) == b""


def test_ids_are_values_and_nothing_else(store: Any, samples: SimpleNamespace) -> None:
    store.add(samples.batch([samples.row("a")]))

    for name in ("' OR 1=1 --", "%", "", "a'", "a\x00"):
        assert store.queries.get(name) is None


def test_files_removed_by_compaction_are_found_again(store: Any, samples: SimpleNamespace) -> None:
    for number in range(3):
        store.add(samples.batch([samples.row(f"i{number}", number, revision=number)]))
    reader = samples.Store(store.folder, store.documents)
    assert reader.ids() == ["i2", "i1", "i0"]
    known = dict(reader.queries.manifest._files)
    compaction = store.lake.compact(reader.queries.manifest, min_files=2)
    store.documents.put([*compaction.documents, *store.lake.remove(compaction.obsolete)])
    reader.queries.manifest._files = known

    reader.queries.manifest._orders = {
        key: order for order, key, _ in store.documents.find("lake_files")
    }

    assert reader.ids() == ["i2", "i1", "i0"]
    assert reader.queries.get("i1").id == "i1"
    reader.close()


def test_a_missing_visible_file_is_a_lake_error(store: Any, samples: SimpleNamespace) -> None:
    store.add(samples.batch([samples.row("a", revision=1)]))
    shutil.rmtree(store.folder / "lake" / "inferences")

    with pytest.raises(LakeError):
        store.queries.find()
    with pytest.raises(LakeError):
        store.queries.get("a")


def test_a_damaged_visible_file_is_a_lake_error(store: Any, samples: SimpleNamespace) -> None:
    (document,) = store.add(samples.batch([samples.row("a")]))
    (store.folder / "lake" / document.key).write_bytes(b"PAR1 not really PAR1")

    with pytest.raises(LakeError):
        store.queries.find()


def test_threads_share_one_store(store: Any, samples: SimpleNamespace) -> None:
    for number in range(20):
        store.add(samples.batch([samples.row(f"i{number}", number, **{"features.x": number})]))

    def ask(number: int) -> list[str]:
        return list(store.ids(where=f"features.x = {number}"))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(20))) == [[f"i{number}"] for number in range(20)]


def exported(store: Any, samples: SimpleNamespace) -> None:
    rows = [
        samples.row("a", 1, row=0, **{"features.x": 1, "features.name": 'say "hi",\n'}),
        samples.row("a", 1, row=1, **{"features.x": 2, "features.name": None}),
    ]
    batch = samples.batch(rows)
    store.add(batch)
    store.add(samples.batch([samples.row("b", 2, **{"features.x": 1.5, "outputs.y": [1.0]})]))
    store.documents.put([samples.labelled("prod/flights", "request-b", 0, {"late": True})])
    scores = Scores.of(batch, outlier_score=[1.0, 2.0], p_value=[1, 1], outlier=[False, False])
    store.documents.put(store.lake.stage_scores([scores], first=0, last=0))


def test_export_as_json_lines(store: Any, samples: SimpleNamespace) -> None:
    exported(store, samples)

    lines = b"".join(store.queries.export(format="jsonl")).decode().splitlines()

    assert [json.loads(line) for line in lines] == [
        store.queries.get(name).to_json() for name in ("a", "b")
    ]


def test_export_as_csv(store: Any, samples: SimpleNamespace) -> None:
    exported(store, samples)

    text = b"".join(store.queries.export(format="csv", order="time")).decode()

    found = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["features.name"] for row in found] == ['say "hi",\n', "", ""]
    assert [row["features.x"] for row in found] == ["1", "2", "1.5"]
    assert [row["outputs.y"] for row in found] == ["", "", "[1.0]"]
    assert [row["labels.late"] for row in found] == ["", "", "true"]
    assert [row["outlier_score"] for row in found] == ["1.0", "2.0", ""]


def test_export_as_parquet(store: Any, samples: SimpleNamespace) -> None:
    exported(store, samples)

    data = b"".join(store.queries.export(format="parquet", where="features.x > 0"))

    table = pq.read_table(io.BytesIO(data))
    assert table.column("id").to_pylist() == ["a", "a", "b"]
    assert table.column("features.x").to_pylist() == [1.0, 2.0, 1.5]
    assert table.column("outputs.y").to_pylist() == [None, None, [1.0]]


def test_an_export_refuses_before_its_first_byte(store: Any, samples: SimpleNamespace) -> None:
    store.add(samples.batch([samples.row("a")]))

    with pytest.raises(QueryError, match="csv, jsonl, parquet"):
        store.queries.export(format="xml")
    with pytest.raises(WhereError):
        store.queries.export(where="features.x = 1")


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_survive_their_text(moment: datetime) -> None:
    text = moment.isoformat(timespec="microseconds")

    assert parse_time(format_time(parse_time(text, "from")), "from") == parse_time(text, "from")


def test_finer_digits_of_a_time_are_cut() -> None:
    assert parse_time("1970-01-01T00:00:00.123456789Z", "from") == 123_456
    assert parse_time("1970-01-01t01:00:00.5+01:00", "from") == 500_000


@pytest.mark.parametrize("order", ["time", "-time"])
@pytest.mark.parametrize("limit", [1, 3, 50])
def test_pages_of_a_large_file_with_gaps_and_crowds(
    store: Any, samples: SimpleNamespace, order: str, limit: int
) -> None:
    # Most rows at one moment, some long before, some long after: no guess of density is right.
    minutes = [*range(40), *[50_000] * 60, *range(90_000, 90_040)]
    rows = [samples.row(f"i{n:03d}", minute) for n, minute in enumerate(minutes)]
    store.add(samples.batch(rows[::2]), samples.batch(rows[1::2], layout={"protocol": "v1"}))
    expected = [f"i{n:03d}" for n in range(len(minutes))]

    found = store.all_ids(order=order, limit=limit)

    assert found == (expected if order == "time" else expected[::-1])
    inside = store.all_ids(
        order=order,
        limit=limit,
        from_="2013-01-01T00:30:00Z",
        to="2013-02-06",
        where="status is null",
    )
    assert sorted(inside) == expected[30:100]


def test_a_score_belongs_to_the_revision_that_was_scored(
    store: Any, samples: SimpleNamespace
) -> None:
    batches = [
        samples.batch([samples.row("a", 1, revision=0), samples.row("b", 2)]),
        samples.batch([samples.row("a", 5, revision=1)]),
    ]
    for number, batch in enumerate(batches):
        store.add(batch)
        size = len(batch)
        scores = Scores.of(
            batch, outlier_score=[number + 1.0] * size, p_value=[1] * size, outlier=[False] * size
        )
        store.documents.put(store.lake.stage_scores([scores], first=number, last=number))

    assert store.ids(where="outlier_score = 1") == ["b"]
    assert store.ids(where="outlier_score = 2") == ["a"]
    assert [item.rows[0].outlier_score for item in store.queries.find()[0]] == [2.0, 1.0]
    assert store.queries.get("a").rows[0].outlier_score == 2.0


@pytest.mark.parametrize("order", ["time", "-time"])
def test_files_whose_times_overlap_are_all_asked(
    store: Any, samples: SimpleNamespace, order: str
) -> None:
    for k in range(12):
        rows = [samples.row(f"low{k:02d}", k), samples.row(f"up{k:02d}", 100 + k)]
        store.add(samples.batch(rows))
    expected = [f"low{k:02d}" for k in range(12)] + [f"up{k:02d}" for k in range(12)]

    found = store.all_ids(order=order, limit=9)

    assert found == (expected if order == "time" else expected[::-1])


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (f"features.n = {2**53}", "a"),
        (f"features.n = {2**53}.0", "a"),
        (f"features.n in (1.5, {2**53 + 1})", "b"),
        (f"features.n not in ({2**53 + 1}, 1.0)", "a"),
        (f"features.n > {2**53}.0", "b"),
        (f"labels.n = {2**53}", "a"),
        (f"labels.n = {2**53 + 1}", "b"),
        (f"labels.n in (1, 1.5, {2**53 + 1}, null)", "b"),
        (f"labels.n not in ({2**53 + 1}, 1.5)", "ac"),
        (f"labels.n > {2**53}", "b"),
        (f"labels.n <= {2**53}", "ac"),
        (f"labels.n between 1 and {2**53}", "a"),
        (f"labels.n != {2**53}", "bc"),
        ("labels.n < 0.5", "c"),
        (f"labels.n = {-(2**100)}", "c"),
        ("features.f = 3.4028235e38", "a"),
        ("features.f in (3.4028235e38, 1e39)", "a"),
        ("features.f < 3.4028235e38", "b"),
    ],
)
def test_numbers_that_are_no_doubles_compare_exactly(
    store: Any, samples: SimpleNamespace, where: str, expected: str
) -> None:
    largest = float(np.finfo(np.float32).max)
    rows = [
        samples.row("a", **{"features.n": 2**53, "features.f": largest}),
        samples.row("b", **{"features.n": 2**53 + 1, "features.f": 1.0}),
        samples.row("c", **{"features.n": None, "features.f": None}),
    ]
    store.add(samples.batch(rows, types={"features.f": pa.float32(), "features.n": pa.int64()}))
    for name, label in (("a", 2**53), ("b", 2**53 + 1), ("c", -(2**100))):
        labels = {"n": label}
        store.documents.put([samples.labelled("prod/flights", f"request-{name}", 0, labels)])

    assert "".join(sorted(store.ids(where=where))) == expected


def test_a_label_of_a_row_that_no_inference_can_have_is_passed_over(
    store: Any, samples: SimpleNamespace
) -> None:
    store.add(samples.batch([samples.row("a")]))
    for number in (0, 1 << 40):
        labels = samples.labelled("prod/flights", "request-a", number, {"late": 1})
        store.documents.put([labels])

    assert store.ids(where="labels.late = 1") == ["a"]


def test_times_can_be_compared_in_where(store: Any, samples: SimpleNamespace) -> None:
    store.add(samples.batch([samples.row(f"i{n}", n) for n in range(3)]))

    assert store.ids(where="time between '2013-01-01T00:01:00Z' and '2013-01-02'") == ["i2", "i1"]
    assert store.ids(where="time = '2013-01-01T01:01:00+01:00'") == ["i1"]
    with pytest.raises(WhereError, match="a date, or a time with its zone"):
        store.ids(where="time > '2013-13-01'")
    with pytest.raises(WhereError, match="RFC 3339"):
        store.ids(where="time > 5")


def test_other_types_of_arrow_are_shown_as_text_or_numbers(
    store: Any, samples: SimpleNamespace
) -> None:
    moment = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    values = {
        "features.when": moment,
        "features.day": moment.date(),
        "features.exact": Decimal("1.25"),
        "features.half": np.float16(0.5),
        "features.word": "x",
        "features.nested": {"a": math.nan},
    }
    types = {
        "features.when": pa.timestamp("ms", tz="Europe/Berlin"),
        "features.half": pa.float16(),
        "features.word": pa.dictionary(pa.int8(), pa.string()),
    }
    store.add(samples.batch([samples.row("a", **values)], types=types))

    features = store.queries.get("a").rows[0].features

    assert json.loads(json.dumps(dict(features), allow_nan=False)) == {
        "when": "2020-01-02 04:04:05.000+0100",
        "day": "2020-01-02",
        "exact": 1.25,
        "half": 0.5,
        "word": "x",
        "nested": {"a": None},
    }
    assert store.ids(where="features.word = 'x' and features.half = 0.5") == ["a"]
    assert store.ids(where="features.exact >= 1.25 and features.when is not null") == ["a"]
