"""What encoding an exchange costs without rules of redaction, and what rules add.

    python tests/benchmarks/bench_redaction.py [--rounds 15]

Both events of a V2 request of 1x20 and of its answer of one value; the rounds of all cases
alternate, and the fastest of each counts, so that a busy machine meets all alike.
"""

import argparse
import json
import time
from collections.abc import Callable

from sidelight.logger import Capture, Exchange, Redaction, RedactionRule
from sidelight.logger._binary_tensors import encode

_KEY = bytes(16)
_CALLS = 2000
_ROW = [round(place * 0.37 + 0.1234, 6) for place in range(20)]
_JSON = b"content-type: application/json\r\n"


def _exchange(body: bytes, line: bytes = _JSON) -> Exchange:
    answer = {"name": "p", "shape": [1, 1], "datatype": "FP32", "data": [0.5312345623]}
    return Exchange(
        method=b"POST",
        target=b"/v2/models/flights/infer",
        request_head=b"POST /v2/models/flights/infer HTTP/1.1\r\nhost: m\r\n%b\r\n" % line,
        request_body=body,
        response_head=b"HTTP/1.1 200 OK\r\n%b\r\n" % _JSON,
        response_body=json.dumps({"model_name": "flights", "outputs": [answer]}).encode(),
        status=200,
        started_ns=1_700_000_000_123_456_789,
        finished_ns=1_700_000_000_133_456_789,
        latency_ms=10.0,
        request_id=b"0123456789ab-1f",
    )


def _binary() -> Exchange:
    chunk = encode("FP32", _ROW)
    tensor = {"name": "x", "shape": [1, 20], "datatype": "FP32"}
    head = json.dumps(
        {"inputs": [tensor | {"parameters": {"binary_data_size": len(chunk)}}]}
    ).encode()
    line = b"inference-header-content-length: %d\r\n" % len(head)
    return _exchange(head + chunk, line)


def _cases() -> dict[str, tuple[Capture, Exchange]]:
    tensor = {"name": "x", "shape": [1, 20], "datatype": "FP32", "data": _ROW}
    v2 = _exchange(json.dumps({"inputs": [tensor]}).encode())
    names = {f"x_{place}": value for place, value in enumerate(_ROW)}
    v1 = _exchange(json.dumps({"instances": [names]}).encode())

    def ruled(**rule: object) -> Capture:
        rules = [RedactionRule(on="request", **rule)]  # type: ignore[arg-type]  # any rule
        return Capture(redaction=Redaction(rules, key=_KEY))

    return {
        "no rules": (Capture(), v2),
        "a rule about another deployment": (ruled(action="mask", column="x", deployment="a/b"), v2),
        "mask a column of 20": (ruled(action="mask", column="x_3"), v2),
        "hmac of a column of 20": (ruled(action="hmac", column="x_3"), v2),
        "hmac of all 20": (ruled(action="hmac", tensor="x"), v2),
        "drop the tensor": (ruled(action="drop", tensor="x"), v2),
        "path": (ruled(action="mask", path="$.inputs[0].data[3]"), v2),
        "V1, mask a key of 20": (ruled(action="mask", column="x_3"), v1),
        "no rules, binary": (Capture(), _binary()),
        "binary, mask a column of 20": (ruled(action="mask", column="x_3"), _binary()),
    }


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    for _ in range(_CALLS):
        call()
    return (time.perf_counter() - start) / _CALLS


def main() -> None:
    """Measure and print microseconds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    cases = _cases()
    best = dict.fromkeys(cases, float("inf"))
    for _ in range(rounds):
        for name, (capture, exchange) in cases.items():
            found = _seconds(lambda capture=capture, exchange=exchange: capture.events(exchange))  # type: ignore[misc]  # bound here
            best[name] = min(best[name], found)
    for name, seconds in best.items():
        print(f"{seconds * 1e6:8.2f} us  {name}")


if __name__ == "__main__":
    main()
