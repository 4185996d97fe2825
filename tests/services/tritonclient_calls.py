"""What ``tritonclient`` is asked to do; runs in an environment of its own, prints what it saw."""

import json
import queue
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton  # type: ignore[import-not-found] # not in this environment
from tritonclient.utils import (  # type: ignore[import-not-found] # as above
    InferenceServerException,
)

# The first one is enough unless the machine stands still.
_DEADLINES_S = (0.3, 1.0, 3.0, 10.0, 30.0)


def main(address: str) -> dict[str, Any]:
    client = triton.InferenceServerClient(address)
    seen: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": client.is_model_ready("flights", "2"),
    }
    result = client.infer(
        "flights",
        inputs(),
        model_version="2",
        request_id="one",
        headers={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
    )
    seen["delay"] = result.as_numpy("delay").tolist()
    seen["label"] = [text.decode() for text in result.as_numpy("label").tolist()]
    client.infer("flights", inputs(), compression_algorithm="gzip", request_id="compressed")
    large = triton.InferInput("x", [1, 2_000_000], "FP32")
    large.set_data_from_numpy(np.ones([1, 2_000_000], np.float32))
    client.infer("flights", [large], request_id="large")
    seen["errors"] = [error_of(lambda: client.infer("missing", inputs()))]
    seen["errors"].append(error_of_slow(client))
    seen["stream"] = stream(client)
    client.close()
    return seen


def inputs() -> list[Any]:
    values = triton.InferInput("x", [2, 2], "FP32")
    values.set_data_from_numpy(np.array([[1, 2], [3, 4.5]], np.float32))
    names = triton.InferInput("carrier", [2], "BYTES")
    names.set_data_from_numpy(np.array([b"UA", "Ä".encode()], object))
    return [values, names]


def error_of(call: Any) -> str:
    try:
        call()
    except InferenceServerException as error:
        return str(error.status())
    return ""


def error_of_slow(client: Any) -> str:
    """Return the error of a deadline that was over behind the model's door, not before it."""
    error = ""
    for seconds in _DEADLINES_S:

        def ask(seconds: float = seconds) -> None:
            client.infer("slow", inputs(), client_timeout=seconds, request_id=f"slow-{seconds}")

        error = error_of(ask)
        if client.is_model_ready("slow"):
            break
    return error


def stream(client: Any) -> list[list[Any]]:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in ("0", "1", "2"):
        client.async_stream_infer("words", inputs(), request_id=f"stream-{number}")
    found = []
    for _ in range(4):
        result, error = answers.get(timeout=180)
        if error is not None:
            found.append(["error", error.message()])
        else:
            response = result.get_response()
            found.append([response.id, result.as_numpy("word").tolist()])
    client.stop_stream()
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
