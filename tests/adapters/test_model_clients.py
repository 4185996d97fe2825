"""Live models over HTTP: a stub server that counts, and may be down, slow, or answer rubbish."""

import json
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import httpx
import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

from sidelight.adapters import Endpoint, OutputChoice, V1Model, V2Model, http_client, v1_url, v2_url
from sidelight.adapters._decoding_columns import column_names
from sidelight.adapters.dialects import DIALECTS, Half
from sidelight.explainers import (
    Background,
    BadAnswer,
    Broker,
    DeadlineExceeded,
    Limits,
    LocalModel,
    ModelUnavailable,
    OutputUnknown,
    RowError,
    Shapley,
    Target,
)

Respond = Callable[[dict[str, Any]], Any]
FAST = Limits(rows_per_second=1e9)


@dataclass
class Stub:
    """What the server was sent, and how it answers: a JSON value, bytes, or (status, value)."""

    respond: Respond
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Any] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    open_now: int = 0
    open_most: int = 0
    url: str = ""

    @property
    def rows(self) -> int:
        return sum(body["inputs"][0]["shape"][0] for body in self.bodies)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        stub = cast("Any", self.server).stub
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with stub.lock:
            stub.bodies.append(body)
            stub.headers.append(self.headers)
            stub.paths.append(self.path)
            stub.open_now += 1
            stub.open_most = max(stub.open_most, stub.open_now)
        try:
            answer = stub.respond(body)
        finally:
            with stub.lock:
                stub.open_now -= 1
        if answer is None:
            self.close_connection = True
            return
        status, value = answer if isinstance(answer, tuple) else (200, answer)
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if content[:2] == b"\x1f\x8b":
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(respond: Respond) -> Iterator[Stub]:
    stub = Stub(respond)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        cast("Any", server).stub = stub
        stub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield stub
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with http_client() as client:
        yield client


def endpoint(client: httpx.Client, url: str, **options: Any) -> Endpoint:
    return Endpoint(client=client, url=url, explanation_id="abc", **options)


def layout_of(n_features: int) -> dict[str, Any]:
    """One FP64 tensor of all features, flat, as the dialect describes it."""
    tensor = {"name": "x", "datatype": "FP64", "shape": [n_features], "list": False}
    names = [f"x_{index}" for index in range(n_features)]
    return {"protocol": "v2-json", "tensors": [{**tensor, "nested": False, "columns": names}]}


def v2_model(client: httpx.Client, url: str, n_features: int = 2, **options: Any) -> V2Model:
    names = [f"x_{index}" for index in range(n_features)]
    return V2Model(endpoint(client, url), layout_of(n_features), names, **options)


def table_of(body: dict[str, Any]) -> Any:
    return np.array(body["inputs"][0]["data"], dtype=float).reshape(body["inputs"][0]["shape"])


def tensor(name: str, datatype: str, data: list[Any], *tail: int) -> dict[str, Any]:
    rows = len(data) // math.prod(tail)
    return {"name": name, "datatype": datatype, "shape": [rows, *tail], "data": data}


def summing(body: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_name": "m",
        "model_version": "7",
        "outputs": [tensor("sum", "FP64", table_of(body).sum(axis=1).tolist())],
    }


V2_BODIES = [
    pytest.param(
        {
            "inputs": [
                tensor("age", "INT64", [31, 50], 1),
                tensor("city", "BYTES", ["Oslo", None]),
                tensor("fee", "FP32", [1.5, None]),
                tensor("paid", "BOOL", [True, False]),
            ]
        },
        id="a-tensor-a-feature",
    ),
    pytest.param({"inputs": [tensor("x", "FP64", [1.0, 2.0, 3.0, None], 2)]}, id="flat"),
    pytest.param(
        {"inputs": [{**tensor("x", "FP32", [1, 2, 3, 4], 2), "data": [[1, 2], [3, 4]]}]},
        id="nested",
    ),
    pytest.param(
        {"inputs": [{**tensor("i", "UINT8", [0] * 8, 2, 2), "data": [[[1, 2], [3, 4]]] * 2}]},
        id="image",
    ),
    pytest.param(
        {
            "inputs": [
                {**tensor("t", "BYTES", ["a", "b"], 1), "parameters": {"content_type": "str"}}
            ],
            "parameters": {"content_type": "pd"},
        },
        id="content-types",
    ),
]
V1_BODIES = [
    pytest.param({"instances": [[1.5, 2.0], [3.0, 4.0]]}, id="rows"),
    pytest.param({"instances": [[1.5, "a", None], [3.0, "b", True]]}, id="mixed-rows"),
    pytest.param({"instances": [["a"], ["b"]]}, id="rows-of-one"),
    pytest.param({"instances": [1.5, 2.5]}, id="scalars"),
    pytest.param({"instances": [{"a": 1, "b": "x"}, {"a": 2, "b": None}]}, id="objects"),
    pytest.param({"instances": [{"a": [1.0], "b": {"b64": "aGk="}}] * 2}, id="one-value-lists"),
    pytest.param({"instances": [[[1, 2], [3, 4]]] * 2}, id="images"),
    pytest.param({"inputs": {"a": [1, 2], "b": [[0.5, 1.5], [2.5, 3.5]]}}, id="columns"),
    pytest.param({"inputs": [[1.5, 2.5], [3.5, 4.5]]}, id="unnamed-column"),
    pytest.param({"signature_name": "s", "instances": [[1.0], [2.0]]}, id="signature"),
    pytest.param(
        {"instances": [{"features": [1.0, 2.0]}, {"features": [3.0, 4.0]}]}, id="features"
    ),
]


def decoded(body: dict[str, Any]) -> tuple[Half, list[str], list[list[Any]]]:
    dialect = next(dialect for dialect in DIALECTS if dialect.claims(body, "request"))
    half = dialect.decode(body, "request")
    columns = [
        values[place :: tensor.n_columns]
        for tensor, values in zip(half.layout.tensors, half.values, strict=True)
        for place in range(tensor.n_columns)
    ]
    return half, column_names(half.layout, "f", ()), columns


@pytest.mark.parametrize("body", [*V2_BODIES, *V1_BODIES])
def test_requests_are_laid_out_as_the_logged_ones(
    body: dict[str, Any], client: httpx.Client
) -> None:
    half, names, columns = decoded(body)
    is_v2 = half.layout.protocol.startswith("v2")
    answer = {"outputs": [tensor("y", "FP64", [1, 2])]} if is_v2 else {"predictions": [1.0, 2.0]}
    model_class: Any = V2Model if is_v2 else V1Model
    frozen = tuple([tuple(v) if isinstance(v, list) else v for v in column] for column in columns)
    with serving(lambda _: answer) as stub:
        model = model_class(endpoint(client, stub.url), half.layout.to_json(names), names)
        model.predict(frozen, timeout_s=100)

    sent = stub.bodies[0]
    sent.pop("id", None)
    again, _, sent_columns = decoded(sent)
    assert again.layout == half.layout
    assert sent_columns == columns
    assert sent == body


def test_columns_go_out_in_the_order_of_the_payload(client: httpx.Client) -> None:
    half, names, _ = decoded({"inputs": [tensor("a", "FP64", [1.0]), tensor("b", "BYTES", ["z"])]})
    with serving(lambda _: {"outputs": [tensor("y", "FP64", [1])]}) as stub:
        model = V2Model(endpoint(client, stub.url), half.layout.to_json(names), ["b", "a"])
        model.predict((["z"], [1.0]), timeout_s=100)

    assert [item["data"] for item in stub.bodies[0]["inputs"]] == [[1.0], ["z"]]


def test_not_finite_and_missing_values_are_null(client: httpx.Client) -> None:
    with serving(lambda _: {"outputs": [tensor("y", "FP64", [1, 2])]}) as stub:
        v2_model(client, stub.url).predict(([math.nan, 1.0], [None, math.inf]), timeout_s=100)

    assert stub.bodies[0]["inputs"][0]["data"] == [None, None, 1.0, None]


def test_every_call_is_marked_as_an_explainers(client: httpx.Client) -> None:
    with serving(summing) as stub:
        model = v2_model(client, stub.url)
        for _ in range(2):
            model.predict(([1.0], [2.0]), timeout_s=100)

    for headers in stub.headers:
        assert headers["Sidelight-Skip"] == "true"
        assert headers["Seldon-Skip-Logging"] == "true"
    # Names differ: equal ones with other bytes would be counted as reused keys.
    assert [headers["Ce-Id"] for headers in stub.headers] == ["explain-abc-0", "explain-abc-1"]


def test_urls_quote_the_name() -> None:
    assert v2_url("http://h:1/x/", "a b") == "http://h:1/x/v2/models/a%20b/infer"
    assert v1_url("http://h:1", "m") == "http://h:1/v1/models/m:predict"


CLASSIFIER = {
    "outputs": [
        tensor("label", "BYTES", ["no"]),
        tensor("late", "BOOL", [True]),
        tensor("class", "INT64", [1]),
        tensor("proba", "FP64", [0.25, 0.75], 2),
    ]
}


@pytest.mark.parametrize(
    ("output", "name", "value"),
    [
        pytest.param(None, "proba_0", 0.25, id="first-with-fractions"),
        pytest.param("proba_1", "proba_1", 0.75, id="by-name"),
        pytest.param("class", "class", 1, id="integer"),
        pytest.param("late", "late", 1, id="flag"),
        pytest.param(4, "proba_1", 0.75, id="by-number"),
    ],
)
def test_output_is_chosen(
    output: str | int | None, name: str, value: float, client: httpx.Client
) -> None:
    with serving(lambda _: CLASSIFIER) as stub:
        model = v2_model(client, stub.url, choice=OutputChoice(output=output))
        answer = model.predict(([1.0], [2.0]), timeout_s=100)

    assert answer.values.tolist() == [[value]]
    assert model.output_name == name


@pytest.mark.parametrize("output", ["label", "probability", 0, 9])
def test_output_that_is_not_there_or_no_number_names_those_there_are(
    output: str | int, client: httpx.Client
) -> None:
    with serving(lambda _: CLASSIFIER) as stub, pytest.raises(OutputUnknown) as caught:
        v2_model(client, stub.url, choice=OutputChoice(output=output)).predict(
            ([1.0], [2.0]), timeout_s=100
        )

    assert caught.value.numeric == ("late", "class", "proba_0", "proba_1")
    assert caught.value.other == ("label",)
    assert "proba_1" in str(caught.value)


def test_registered_schema_names_the_outputs(client: httpx.Client) -> None:
    choice = OutputChoice(output="yes", registered=("no", "yes"))
    with serving(lambda _: {"predictions": [[0.25, 0.75]]}) as stub:
        layout = {**layout_of(2), "protocol": "v1-row", "form": "list"}
        layout["tensors"][0]["datatype"] = "NUMBER"
        model = V1Model(endpoint(client, stub.url), layout, ["x_0", "x_1"], choice=choice)

        answer = model.predict(([1.0], [2.0]), timeout_s=100)

    assert answer.values.tolist() == [[0.75]]


def test_other_version_than_expected_is_said(client: httpx.Client) -> None:
    with serving(summing) as stub:
        expected = v2_model(client, stub.url, version="7")
        other = v2_model(client, stub.url, version="6")
        for model in (expected, other):
            assert model.predict(([1.0], [2.0]), timeout_s=100).version == "7"

    assert expected.version_mismatch is None
    assert other.version_mismatch == "7"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"<html>", id="no-json"),
        pytest.param([1, 2], id="no-object"),
        pytest.param({"error": "no"}, id="no-outputs"),
        pytest.param({"outputs": [tensor("y", "FP64", [1.0, 2.0])]}, id="rows"),
        pytest.param({"outputs": [{**tensor("y", "FP64", [1.0]), "shape": [3]}]}, id="shape"),
        pytest.param({"outputs": [tensor("y", "FP64", [])]}, id="empty"),
        pytest.param({"outputs": [tensor("y", "FP64", ["x"])]}, id="text-as-number"),
        pytest.param({"outputs": [tensor("y", "FP64", ["1.5"])]}, id="number-as-text"),
        pytest.param((404, {"error": "no such model"}), id="not-found"),
        pytest.param((302, b""), id="redirect"),
        pytest.param(b"[" * 200_000, id="deep"),
        pytest.param(b"\x1f\x8b rubbish", id="compressed"),
    ],
)
def test_rubbish_is_a_bad_answer(answer: Any, client: httpx.Client) -> None:
    with serving(lambda _: answer) as stub, pytest.raises(BadAnswer):
        v2_model(client, stub.url).predict(([1.0], [2.0]), timeout_s=100)


@pytest.mark.parametrize("value", [b"NaN", b"null", b"Infinity"])
def test_prediction_that_is_no_number_is_a_bad_answer(value: bytes, client: httpx.Client) -> None:
    content = b'{"outputs": [{"name": "y", "datatype": "FP64", "shape": [1], "data": [%s]}]}'
    with (
        serving(lambda _: content % value) as stub,
        Broker(FAST) as broker,
        pytest.raises(BadAnswer),
    ):
        Shapley().explain(
            [(1.0,)],
            Background(names=("x_0",), rows=[(1.0,)]),
            broker=broker,
            model=v2_model(client, stub.url, 1),
            target=Target(deployment="a/b"),
            deadline_s=100,
        )


def test_answer_beyond_the_bound_is_refused(client: httpx.Client) -> None:
    with serving(lambda _: b" " * 10_000) as stub:
        bounded = endpoint(client, stub.url, max_response_bytes=1_000)
        model = V2Model(bounded, layout_of(1), ["x_0"])
        with pytest.raises(BadAnswer):
            model.predict(([1.0],), timeout_s=100)


def test_error_of_the_server_is_quoted_and_counted_as_down(client: httpx.Client) -> None:
    with (
        serving(lambda _: (500, {"error": "no memory"})) as stub,
        pytest.raises(ModelUnavailable, match="no memory") as caught,
    ):
        v2_model(client, stub.url).predict(([1.0], [2.0]), timeout_s=100)

    assert not caught.value.again


def test_refused_connection_is_not_counted_as_a_call(client: httpx.Client) -> None:
    with serving(summing) as stub:
        pass
    with pytest.raises(ModelUnavailable) as caught:
        v2_model(client, stub.url).predict(([1.0], [2.0]), timeout_s=100)

    assert not caught.value.reached
    assert stub.url in str(caught.value)


def test_address_that_is_none_is_unavailable(client: httpx.Client) -> None:
    with pytest.raises(ModelUnavailable):
        v2_model(client, "ftp://127.0.0.1/x").predict(([1.0], [2.0]), timeout_s=100)


def test_dropped_connection_may_be_tried_again(client: httpx.Client) -> None:
    with serving(lambda _: None) as stub, pytest.raises(ModelUnavailable) as caught:
        v2_model(client, stub.url).predict(([1.0], [2.0]), timeout_s=100)

    assert caught.value.again
    assert caught.value.reached


def test_value_that_json_lacks_is_refused(client: httpx.Client) -> None:
    layout = layout_of(1)
    layout["tensors"][0]["datatype"] = "INT64"
    with serving(summing) as stub, pytest.raises(RowError):
        V2Model(endpoint(client, stub.url), layout, ["x_0"]).predict(([2**70],), timeout_s=100)


@pytest.mark.parametrize(
    ("change", "features"),
    [
        pytest.param({"whole": True}, ["x_0", "x_1"], id="no-table"),
        pytest.param({}, ["x_0"], id="unknown-feature"),
    ],
)
def test_layout_that_cannot_be_asked_is_refused(
    change: dict[str, Any], features: list[str], client: httpx.Client
) -> None:
    with pytest.raises(RowError):
        V2Model(endpoint(client, "http://127.0.0.1:1"), {**layout_of(2), **change}, features)


def test_tensor_without_rows_is_refused(client: httpx.Client) -> None:
    layout = layout_of(1)
    layout["tensors"][0]["scalar"] = True
    with pytest.raises(RowError):
        V2Model(endpoint(client, "http://127.0.0.1:1"), layout, ["x_0"])


@pytest.fixture(scope="module")
def late_model() -> tuple[LogisticRegression, Any]:
    table, labels = make_classification(400, 8, n_informative=6, random_state=0)
    return LogisticRegression().fit(table, labels), table


def probabilities(model: LogisticRegression) -> Respond:
    def respond(body: dict[str, Any]) -> dict[str, Any]:
        values = model.predict_proba(table_of(body))
        return {"outputs": [tensor("proba", "FP64", values.ravel().tolist(), 2)]}

    return respond


def test_live_explanation_equals_the_one_in_process_and_its_cost_what_the_server_counted(
    client: httpx.Client, late_model: tuple[LogisticRegression, Any]
) -> None:
    model, table = late_model
    names = tuple(f"x_{index}" for index in range(8))
    background = Background(names=names, rows=table[:20].tolist())
    options: Any = {"target": Target(deployment="a/b"), "deadline_s": 100}
    with serving(probabilities(model)) as stub, Broker(FAST) as broker:
        live = Shapley().explain(
            [table[30].tolist()],
            background,
            broker=broker,
            model=v2_model(client, stub.url, 8, choice=OutputChoice(output="proba_1")),
            **options,
        )
    with Broker(FAST) as broker:
        local = Shapley().explain(
            [table[30].tolist()],
            background,
            broker=broker,
            model=LocalModel(lambda columns: model.predict_proba(np.array(columns).T)[:, 1]),
            **options,
        )

    assert live.cost.model_calls == len(stub.bodies)
    assert live.cost.model_rows == stub.rows == live.cost.unique_rows
    assert max(body["inputs"][0]["shape"][0] for body in stub.bodies) <= 1_024
    for name in names:
        assert live.rows[0].attributions[name].value == pytest.approx(
            local.rows[0].attributions[name].value, abs=1e-10
        )
    assert live.quality.local_error < 1e-9


def test_eight_explanations_at_once_keep_the_calls_in_flight(
    client: httpx.Client, late_model: tuple[LogisticRegression, Any]
) -> None:
    model, table = late_model
    names = tuple(f"x_{index}" for index in range(8))
    background = Background(names=names, rows=table[:4].tolist())
    limits = Limits(calls_in_flight=2, rows_per_call=200, rows_per_second=1e9)

    with (
        serving(probabilities(model)) as stub,
        Broker(limits) as broker,
        ThreadPoolExecutor(8) as pool,
    ):

        def one(index: int) -> int:
            answer = Shapley().explain(
                [table[index].tolist()],
                background,
                broker=broker,
                model=v2_model(client, stub.url, 8),
                target=Target(deployment="a/b"),
                deadline_s=100,
            )
            return answer.cost.model_rows

        rows = list(pool.map(one, range(30, 38)))

    assert stub.open_most <= 2
    assert sum(rows) == stub.rows == broker.total.model_rows


def test_server_that_dies_in_the_middle_leaves_a_valid_answer(
    client: httpx.Client, late_model: tuple[LogisticRegression, Any]
) -> None:
    model, table = late_model
    names = tuple(f"x_{index}" for index in range(8))
    background = Background(names=names, rows=table[:20].tolist())
    alive = probabilities(model)
    with (
        serving(lambda body: alive(body) if len(stub.bodies) <= 30 else None) as stub,
        Broker(Limits(rows_per_call=100, rows_per_second=1e9, calls_in_flight=1)) as broker,
    ):
        answer = Shapley().explain(
            [table[30].tolist()],
            background,
            broker=broker,
            model=v2_model(client, stub.url, 8),
            target=Target(deployment="a/b"),
            deadline_s=100,
        )

    assert not answer.quality.converged
    assert answer.quality.local_error < 1e-9
    assert max(item.standard_error for item in answer.rows[0].attributions.values()) > 0


def test_slow_server_ends_at_the_deadline(client: httpx.Client) -> None:
    gate = threading.Event()

    def hold(body: dict[str, Any]) -> dict[str, Any]:
        gate.wait(100)
        return summing(body)

    background = Background(names=("x_0", "x_1"), rows=[(0.0, 0.0), (1.0, 1.0)])
    with serving(hold) as stub, Broker(FAST) as broker:
        with pytest.raises(DeadlineExceeded):
            Shapley().explain(
                [(1.0, 2.0)],
                background,
                broker=broker,
                model=v2_model(client, stub.url),
                target=Target(deployment="a/b"),
                deadline_s=0.3,
            )
        gate.set()


@pytest.mark.parametrize(
    ("datatype", "value", "written"),
    [
        pytest.param("INT64", 3.0, 3, id="whole-float"),
        pytest.param("INT64", 3.5, 3.5, id="fraction-for-an-integer"),
        pytest.param("INT64", True, 1, id="flag-for-an-integer"),
        pytest.param("FP64", 3, 3.0, id="integer-for-a-float"),
        pytest.param("BOOL", 1, True, id="one-for-a-flag"),
        pytest.param("BOOL", None, None, id="missing-flag"),
        pytest.param("BYTES", 5, "5", id="number-for-a-text"),
        pytest.param("BYTES", b"hi", "hi", id="text-as-bytes"),
        pytest.param("BYTES", b"\xff\x00", "/wA=", id="bytes"),
        pytest.param("B64", "aGk=", {"b64": "aGk="}, id="encoded"),
        pytest.param("B64", None, None, id="missing-encoded"),
        pytest.param("JSON", '{"a": 1}', {"a": 1}, id="document"),
        pytest.param("JSON", "{a", "{a", id="text-like-a-document"),
        pytest.param("JSON", "a", "a", id="text-among-documents"),
        pytest.param("NUMBER", math.nan, None, id="nan"),
    ],
)
def test_values_are_written_by_datatype(
    datatype: str, value: Any, written: Any, client: httpx.Client
) -> None:
    layout = layout_of(1)
    layout["tensors"][0] |= {"datatype": datatype, "shape": []}
    with serving(lambda _: {"outputs": [tensor("y", "FP64", [1])]}) as stub:
        V2Model(endpoint(client, stub.url), layout, ["x_0"]).predict(([value],), timeout_s=100)

    sent = stub.bodies[0]["inputs"][0]["data"][0]
    assert sent == written
    assert type(sent) is type(written)


def test_missing_lists_are_null() -> None:
    seen = []

    def respond(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        return httpx.Response(200, json={"predictions": [1.0, 2.0]})

    half, names, _ = decoded({"instances": [{"a": [1, 2]}, {"a": None}]})
    with httpx.Client(transport=httpx.MockTransport(respond)) as client:
        model = V1Model(endpoint(client, "http://h"), half.layout.to_json(names), names)
        model.predict(([(1, 2), None],), timeout_s=100)

    assert seen == [{"instances": [{"a": [1, 2]}, {"a": None}]}]


def test_missing_list_is_as_many_nulls_in_flat_data(client: httpx.Client) -> None:
    half, names, _ = decoded({"inputs": [tensor("i", "UINT8", [1, 2, 3, 4], 2, 2)]})
    with serving(lambda _: {"outputs": [tensor("y", "FP64", [1, 2])]}) as stub:
        model = V2Model(endpoint(client, stub.url), half.layout.to_json(names), names)
        model.predict(([(1, 2, 3, 4), None],), timeout_s=100)

    assert stub.bodies[0]["inputs"][0]["data"] == [1, 2, 3, 4, None, None, None, None]


@pytest.mark.parametrize(
    ("error", "reached", "again"),
    [
        pytest.param(httpx.ConnectTimeout("t"), False, False, id="connect-time-out"),
        pytest.param(httpx.PoolTimeout("t"), False, False, id="pool-time-out"),
        pytest.param(httpx.ReadTimeout("t"), True, False, id="read-time-out"),
        pytest.param(httpx.ConnectError("refused"), False, True, id="refused"),
        pytest.param(httpx.ReadError("reset"), True, True, id="reset"),
        pytest.param(httpx.RemoteProtocolError("eof"), True, True, id="closed"),
    ],
)
def test_failures_of_the_network_say_what_may_have_arrived(
    error: Exception, *, reached: bool, again: bool
) -> None:
    def respond(_: httpx.Request) -> httpx.Response:
        raise error

    with (
        httpx.Client(transport=httpx.MockTransport(respond)) as client,
        pytest.raises(ModelUnavailable) as caught,
    ):
        v2_model(client, "http://h").predict(([1.0], [2.0]), timeout_s=100)

    assert (caught.value.reached, caught.value.again) == (reached, again)


def test_answer_that_drips_in_too_slowly_is_given_up() -> None:
    def drip() -> Iterator[bytes]:
        threading.Event().wait(0.02)
        yield b"{"

    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=drip()))
    with httpx.Client(transport=transport) as client, pytest.raises(ModelUnavailable):
        v2_model(client, "http://h").predict(([1.0], [2.0]), timeout_s=0.01)
