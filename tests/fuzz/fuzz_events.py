"""Coverage-guided fuzzing of what the door stores: envelopes, pairing, payloads, batches.

    make fuzz                                       one minute, from the golden samples
    make fuzz FUZZ="-max_total_time=3600 corpus"    libFuzzer's own options

An input is a request to the door as it stands in the archive. A finding is an exception, a payload
that a dialect did not foresee, more than 512 MiB, or an input that takes longer than ten seconds.
Needs atheris, which ``make fuzz`` installs; without it the module can be imported, and the tests
run its target over the samples.
"""

import importlib
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from sidelight.adapters import Decoder
from sidelight.logger import Pair, Pairing, identity, kind_of, parse
from sidelight.logger._journal import EventRecord
from sidelight.payloads import Event

WIRE: Final = Path(__file__).parents[1] / "wire"
_END: Final = b"\r\n\r\n"
_MAX_INFLATED: Final = 1 << 20
_WORDS: Final = (
    *("org.kubeflow.serving.inference.request", "org.kubeflow.serving.inference.response"),
    *("io.seldon.serving.inference.request", "io.seldon.serving.inference.response"),
    *("io.seldon.serving.feedback", "io.sidelight.feedback", "dev.knative.kafka.event"),
    *("application/cloudevents+json", "application/cloudevents-batch+json", "text/csv"),
    *("application/octet-stream", "application/x-protobuf", "ce-type: ", "ce-id: ", "ce-time: "),
    *("content-encoding: gzip", "inferenceheadercontentlength", "data_base64", "specversion"),
    *('"inputs"', '"outputs"', '"instances"', '"predictions"', '"shape"', '"datatype"', '"data"'),
    *('"ndarray"', '"tensor"', '"values"', '"tftensor"', '"strData"', '"jsonData"', '"binData"'),
    *("dataframe_split", "dataframe_records", "binary_data_size", "BYTES", "FP32", "INT64", "BOOL"),
    *(
        "NaN",
        "-Infinity",
        "1e400",
        "18446744073709551616",
        "\\ud800",
        "[-1,2]",
        "[9223372036854775807]",
    ),
    *("POST /consumer/kserve/v2 HTTP/1.1\r\n", "POST /dead-letter HTTP/1.1\r\n"),
)


class UnforeseenError(AssertionError):
    """What must not happen, whatever the bytes are."""


def check(data: bytes) -> None:
    """Take one request through everything that collection does with it.

    Raises
    ------
    UnforeseenError
        If a dialect met what it did not foresee.

    """
    head, end, body = data.partition(_END)
    events, rejected = parse(EventRecord(0, 0, 1, head + end, body))
    if not all(item.expected and item.got for item in rejected):
        raise UnforeseenError("an event was rejected without a reason")
    decoder = Decoder(max_inflated_bytes=_MAX_INFLATED)
    decoded = decoder.decode(_pairs(events))
    for batch in decoded.batches:
        batch.to_ipc()
    if any(reason == "unforeseen" for _, reason in decoded.undecoded):
        raise UnforeseenError("a dialect met what it did not foresee")
    for event in events:
        if kind_of(event.type) == "feedback":
            decoder.labels(event)


def _pairs(events: list[Event]) -> list[Pair]:
    """Return every half alone, and what meets among them."""
    paired = Pairing(lambda _: None).step(events, lambda _: {}).whole()
    alone = []
    for event in events:
        key = identity(event)
        match kind_of(event.type):
            case "request":
                alone.append(Pair(key, "0" * 32, event, None, "request"))
            case "response":
                alone.append(Pair(key, "0" * 32, None, event, "response"))
    return [*paired, *alone]


def seeds() -> dict[str, bytes]:
    """Return the golden samples as they would stand in the archive."""
    conformance = importlib.import_module("tests.adapters.test_conformance")
    found: dict[str, bytes] = {}
    for path in sorted(WIRE.glob("*.json")):
        sample: dict[str, Any] = json.loads(path.read_text())
        for number, (head, body) in enumerate(conformance.requests_of(sample)):
            found[f"{path.stem}-{number}"] = head + body
    return found


def _main() -> None:
    atheris = importlib.import_module("atheris")
    # A message for each would slow the search down; a finding says what it is.
    logging.disable(logging.CRITICAL)
    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as folder:
        for name, data in seeds().items():
            (Path(folder) / name).write_bytes(data)
        words = Path(folder).with_suffix(".dict")
        words.write_text("".join(f"{_quoted(word)}\n" for word in _WORDS))
        options = ["-rss_limit_mb=512", "-timeout=10", "-max_len=65536", f"-dict={words}"]
        atheris.Setup([sys.argv[0], *options, *sys.argv[1:], folder], check)
        atheris.Fuzz()


def _quoted(word: str) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in word.encode()) + '"'


if __name__ == "__main__":
    _main()
