"""Heads that stand for calls of gRPC: whatever the metadata is, they are read as one head."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.logger._emitter_route import route_of
from sidelight.logger._grpc_head import given_id, request_head, response_head
from sidelight.logger._grpc_message import Called
from sidelight.logger._grpc_method import METHODS
from sidelight.logger._grpc_status import http_status
from sidelight.logger._request_id import header

_METADATA = st.lists(
    st.tuples(st.text(min_size=1, max_size=8), st.text(max_size=20) | st.binary(max_size=20))
)


@given(_METADATA)
def test_no_metadata_begins_a_header_of_its_own(metadata: list[tuple[str, str | bytes]]) -> None:
    plain = [(key.replace("\r", "").replace("\n", ""), value) for key, value in metadata]
    for head in (request_head(b"/a.B/C", plain), response_head(200, 0, plain)):
        lines = head.split(b"\r\n")

        assert head.endswith(b"\r\n\r\n")
        assert len(lines) <= len(plain) + 5
        assert not any(b"\n" in line or b"\r" in line for line in lines)


def test_what_describes_the_transport_is_left_out() -> None:
    head = request_head(
        b"/a.B/C",
        [("content-type", "application/grpc"), ("content-encoding", "gzip"), ("te", "trailers")],
    )

    assert head == b"POST /a.B/C HTTP/1.1\r\ncontent-type: application/protobuf\r\n\r\n"


def test_one_of_many_messages_has_no_id_of_the_call() -> None:
    metadata = [("x-request-id", "1"), ("ce-id", "2"), ("seldon-puid", "3"), ("x-other", "4")]
    head = request_head(b"/a.B/C", metadata, is_one_of_many=True)

    assert header(head, head, b"\r\nx-other:") == b"4"
    assert not any(key.encode() in head for key, _ in metadata[:3])
    assert given_id(metadata) == b"1"
    assert given_id(metadata[1:]) == b"2"
    assert given_id([("ce-id", b"bytes")]) == b""


@pytest.mark.parametrize(
    ("code", "status"),
    [(0, 200), (1, 499), (2, 500), (4, 504), (8, 429), (14, 503), (16, 401), (17, 500), (-1, 500)],
)
def test_every_code_has_a_status(code: int, status: int) -> None:
    assert http_status(code) == status


def test_seldons_deployment_is_in_its_metadata() -> None:
    method = METHODS["/seldon.protos.Seldon/Predict"]
    named = method.called(b"\x12\x00", [("seldon", "loans"), ("namespace", "prod")])

    assert method.target(named) == b"/seldon.protos.Seldon/Predict?model=loans"
    assert method.target(method.called(b"", [])) == b"/seldon.protos.Seldon/Predict"


def test_what_is_missing_is_named_with_what_to_install() -> None:
    script = "import sys; sys.modules['grpc'] = None; import sidelight.logger.grpc"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "pip install 'sidelight[grpc]'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("path", "protocol"),
    [
        ("/inference.GRPCInferenceService/ModelInfer", "v2"),
        ("/inference.GRPCInferenceService/ModelStreamInfer", "v2"),
        ("/seldon.protos.Seldon/Predict", "seldon"),
        ("/seldon.protos.Model/Predict", "seldon"),
        ("/tensorflow.serving.PredictionService/Predict", "tensorflow"),
    ],
)
def test_every_captured_method_has_a_route(path: str, protocol: str) -> None:
    target = METHODS[path].target(Called(b"half plus/two", b"3"))
    route = route_of(target, deployment=None, namespace="prod")

    assert (route.path, route.protocol) == (path, protocol)
    assert (route.namespace, route.name, route.version) == ("prod", "half plus/two", "3")
    assert set(METHODS) >= {path}
    assert len(METHODS) == 5


def test_methods_of_no_inference_have_no_route() -> None:
    route = route_of(b"/a.B/C?model=x", deployment=None, namespace="prod")

    assert (route.name, route.model, route.protocol) == ("model", "", "")
