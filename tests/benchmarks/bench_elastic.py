"""Rows a second into Elasticsearch: ours from Arrow, the client's own helpers from ready documents.

Run with ``python tests/benchmarks/bench_elastic.py [rows [rounds [elasticsearch|opensearch]]]``.
"""

import importlib
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.services.elastic_server import ElasticServer, clients

from sidelight.adapters import ElasticConnection, ElasticStore, IndexOptions, connect_elastic
from sidelight.adapters._elastic_documents import NOTHING, row_operations
from sidelight.payloads import ROW_SCHEMA, Batch

N_FEATURES = 20
BATCH_ROWS = 2_000
START_US = 1_356_998_400_000_000


def block(start: int, n_rows: int, random: np.random.Generator) -> Batch:
    """Return rows of one inference each, half of their features numbers of one digit."""
    names = pa.array([f"{number:032x}" for number in range(start, start + n_rows)])
    fixed: dict[str, Any] = {
        "id": names,
        "request_id": names,
        "row": pa.array(np.zeros(n_rows, np.int32)),
        "revision": pa.array(np.zeros(n_rows, np.int16)),
        "time": pa.array(np.arange(start, start + n_rows) + START_US).cast(
            pa.timestamp("us", tz="UTC")
        ),
        "version": pa.array(["v1"] * n_rows),
        "latency_ms": pa.array(random.gamma(2.0, 3.0, n_rows)),
        "status": pa.array(np.full(n_rows, 200, np.int32)),
        "protocol": pa.array(["v2"] * n_rows),
        "synthetic": pa.array([False] * n_rows),
    }
    fields = list(ROW_SCHEMA)
    columns = [fixed.get(field.name, pa.nulls(n_rows, field.type)) for field in fields]
    for index in range(N_FEATURES):
        fields.append(pa.field(f"features.f{index}", pa.float64()))
        values = random.normal(size=n_rows)
        columns.append(pa.array(np.round(values, 1) if index % 2 else values))
    fields.append(pa.field("outputs.y", pa.float64()))
    columns.append(pa.array(random.uniform(size=n_rows)))
    records = pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))
    return Batch.build(records, deployment="prod/flights", layout={"protocol": "v2"})


class Runs:
    """One server; each run has indices of its own, made from the same templates."""

    def __init__(self, server: ElasticServer, n_rows: int) -> None:
        random = np.random.default_rng(7)
        self._server = server
        self._n_runs = 0
        self.n_rows = n_rows
        self._batches = [
            block(start, min(BATCH_ROWS, n_rows - start), random)
            for start in range(0, n_rows, BATCH_ROWS)
        ]
        # Ready means ready: dicts in memory, nothing to be made of anything.
        self._documents = [
            (dict(operation.head), orjson.loads(operation.body))
            for batch in self._batches
            for operation in row_operations(batch, NOTHING, prefix="ready", max_fields=500)
        ]
        name = "elasticsearch" if server.flavour == "elasticsearch" else "opensearchpy"
        self._helpers = importlib.import_module(f"{name}.helpers")
        client = importlib.import_module(name)
        self._client = (
            client.Elasticsearch(server.url, request_timeout=60)
            if server.flavour == "elasticsearch"
            else client.OpenSearch([server.url], timeout=60)
        )

    def _open(self) -> tuple[str, ElasticStore]:
        self._n_runs += 1
        prefix = f"run{self._n_runs}"
        store = ElasticStore(
            connect_elastic(ElasticConnection(url=self._server.url, flavour=self._server.flavour)),
            flavour=self._server.flavour,
            options=IndexOptions(prefix=prefix, replicas=0),
        )
        store.prepare()
        return prefix, store

    def ours(self) -> float:
        """Return seconds for all rows from Arrow to acknowledged."""
        prefix, store = self._open()
        start = time.perf_counter()
        # As the stage hands them over: a thousand records at most.
        for begin in range(0, len(self._batches), 5):
            store.write(self._batches[begin : begin + 5])
        took = time.perf_counter() - start
        store.close()
        self._check(prefix)
        return took

    def streaming(self) -> float:
        """Return seconds of the client's ``streaming_bulk``."""
        return self._helper(lambda actions: self._helpers.streaming_bulk(self._client, actions))

    def parallel(self) -> float:
        """Return seconds of the client's ``parallel_bulk``, with its four threads."""
        return self._helper(lambda actions: self._helpers.parallel_bulk(self._client, actions))

    def _helper(self, send: Callable[[Iterator[dict[str, Any]]], Any]) -> float:
        prefix, store = self._open()
        index = f"{prefix}-inferences-prod-flights-2013-01-01"
        actions = (
            {"_op_type": "index", **head, "_index": index, "_source": body}
            for head, body in self._documents
        )
        start = time.perf_counter()
        deque(send(actions), maxlen=0)
        took = time.perf_counter() - start
        store.close()
        self._check(prefix)
        return took

    def _check(self, prefix: str) -> None:
        self._server.ask("POST", f"/{prefix}-inferences-*/_refresh")
        found = self._server.ask("GET", f"/{prefix}-inferences-*/_count")["count"]
        assert found == self.n_rows, (prefix, found)
        self._server.ask("DELETE", f"/{prefix}-inferences-prod-flights-2013-01-01")


def main() -> None:
    """Print rows a second and ratios, medians of interleaved rounds."""
    words = sys.argv[1:]
    n_rows = int(words[0]) if words else 20_000
    n_rounds = int(words[1]) if len(words) > 1 else 3
    flavour: Any = words[2] if len(words) > 2 else "elasticsearch"
    sys.path.append(str(clients()))
    with tempfile.TemporaryDirectory() as folder:
        server = ElasticServer(flavour, Path(folder))
        server.start()
        try:
            runs = Runs(server, n_rows)
            ways = {"ours": runs.ours, "streaming": runs.streaming, "parallel": runs.parallel}
            runs.streaming()  # the server compiles its own code
            took: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(n_rounds):
                for name, run in ways.items():
                    took[name].append(run())
        finally:
            server.close()
    rates = {name: n_rows / statistics.median(values) for name, values in took.items()}
    print(f"{flavour}: {n_rows} rows of {N_FEATURES + 1} columns, median of {n_rounds}")
    print(f"  ours, from Arrow         {rates['ours']:9,.0f} rows/s")
    for name in ("streaming", "parallel"):
        ratio = rates["ours"] / rates[name]
        print(
            f"  {name + '_bulk, ready':24} {rates[name]:9,.0f} rows/s   ours {ratio:.2f} times it"
        )


if __name__ == "__main__":
    main()
