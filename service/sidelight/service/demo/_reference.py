"""The reference of the demo as a Parquet file: what the model was asked and answered before."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sidelight.payloads import FEATURE_PREFIX, OUTPUT_PREFIX
from sidelight.service.demo._http_client import HttpClient
from sidelight.service.demo._inference_protocol import DATATYPES, MODEL_NAME, OUTPUTS
from sidelight.service.demo._stream import FlightStream
from sidelight.service.demo.errors import ModelNotReady

_TYPES = {"BYTES": pa.string(), "INT64": pa.int64(), "FP64": pa.float64(), "BOOL": pa.bool_()}
_OK = 200


async def ask_model(rows: pd.DataFrame, *, host: str, port: int) -> dict[str, list[Any]]:
    """Ask the model itself, past the proxy, with all rows at once; return its outputs by name.

    Raises
    ------
    ModelNotReady
        If it does not answer with 200.

    """
    stream = FlightStream(rows, group_every=1, group_rows=len(rows))
    client = HttpClient(host, port)
    try:
        status, body = await client.post(
            f"/v2/models/{MODEL_NAME}/infer",
            stream.body(stream.requests[0]),
            # Nobody who listens on the way should take this for traffic.
            headers={"Sidelight-Skip": "true"},
        )
    finally:
        client.close()
    if status != _OK:
        raise ModelNotReady(f"status {status} for the rows of the reference")
    return {item["name"]: item["data"] for item in msgspec.json.decode(body)["outputs"]}


def write_reference(
    path: Path, rows: pd.DataFrame, outputs: Mapping[str, Sequence[Any]]
) -> pa.Table:
    """Write ``features.<name>`` and ``outputs.<name>``, with the types of the wire.

    Parameters
    ----------
    path : Path
        Of the Parquet file.
    rows : pandas.DataFrame
        From ``reference_rows``.
    outputs : mapping of str to sequence
        From ``ask_model``.

    """
    stream = FlightStream(rows)
    features = [stream.features(row) for row in range(stream.n_rows)]
    columns = {
        FEATURE_PREFIX + name: pa.array([row[name] for row in features], _TYPES[datatype])
        for name, datatype in DATATYPES.items()
    }
    columns |= {
        OUTPUT_PREFIX + name: pa.array(outputs[name], _TYPES[datatype])
        for name, datatype in OUTPUTS.items()
    }
    table = pa.table(columns)
    pq.write_table(table, path)
    return table
