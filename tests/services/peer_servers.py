"""Model servers of others: MLServer, the MLflow scoring server, KServe's Python server."""

import contextlib
import json
import os
from pathlib import Path

import httpx
from tests.services.peer_environment import COMPILING, python_of
from tests.services.server_process import ServerProcess, free_ports, run

_IRIS = """
import sys
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
frame = load_iris(as_frame=True)
x = frame.data if sys.argv[1] == "frame" else frame.data.to_numpy()
model = LogisticRegression(max_iter=500).fit(x, frame.target)
"""
_FOR_MLSERVER = _IRIS + "import joblib; joblib.dump(model, sys.argv[2])"
_FOR_MLFLOW = (
    _IRIS
    + """
import mlflow.sklearn
mlflow.sklearn.save_model(
    model, sys.argv[2], pip_requirements=[], serialization_format="cloudpickle"
)
"""
)
_KSERVE = """
import sys
from kserve import InferOutput, InferResponse, Model, ModelServer
from kserve.protocol.rest import server

class Sums(Model):
    def __init__(self):
        super().__init__("sums")
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        sums = payload.inputs[0].as_numpy().sum(axis=1)
        output = InferOutput("sum", list(sums.shape), "FP64")
        output.set_data_from_numpy(sums, binary_data=True)
        return InferResponse(
            payload.id,
            "sums",
            [output],
            model_version="2",
            use_binary_outputs=payload.use_binary_outputs,
        )

class Config(server.uvicorn.Config):
    def __init__(self, *args, host, **options):
        super().__init__(*args, host="127.0.0.1", **options)

server.uvicorn.Config = Config
ModelServer(http_port=int(sys.argv[1]), enable_grpc=False, workers=1).start([Sums()])
"""


class PeerServer:
    """A model server that answers.

    Attributes
    ----------
    url : str
        Of its HTTP port.
    grpc : str
        ``HOST:PORT`` of its gRPC port; empty when it has none.

    """

    def __init__(self, process: ServerProcess, url: str, ready: str, grpc: str = "") -> None:
        self.url = url
        self.grpc = grpc
        self._process = process
        process.start(lambda _: _answers(url + ready))

    def stop(self) -> None:
        self._process.stop()


def mlserver(folder: Path) -> PeerServer:
    """Start MLServer with a scikit-learn model, ``iris`` in version ``v1``."""
    python = python_of("mlserver")
    http, grpc, metrics = free_ports(3)
    run(python, "-c", _FOR_MLSERVER, "array", folder / "model.joblib")
    settings = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics}
    (folder / "settings.json").write_text(json.dumps({**settings, "parallel_workers": 0}))
    model = {
        "name": "iris",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./model.joblib", "version": "v1"},
    }
    (folder / "model-settings.json").write_text(json.dumps(model))
    process = ServerProcess([python.with_name("mlserver"), "start", "."], folder, COMPILING)
    return PeerServer(
        process, f"http://127.0.0.1:{http}", "/v2/models/iris/ready", f"127.0.0.1:{grpc}"
    )


def mlflow(folder: Path) -> PeerServer:
    """Start the scoring server of MLflow as ``mlflow models serve`` does, with ``iris``."""
    python = python_of("mlflow")
    (port,) = free_ports(1)
    run(python, "-W", "ignore", "-c", _FOR_MLFLOW, "frame", folder / "model")
    process = ServerProcess(
        [
            *(python.with_name("mlflow"), "models", "serve", "--model-uri", folder / "model"),
            *("--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)),
            *("--workers", "1"),
        ],
        folder,
        # It starts uvicorn by its name.
        {**COMPILING, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"},
    )
    return PeerServer(process, f"http://127.0.0.1:{port}", "/ping")


def kserve(folder: Path) -> PeerServer:
    """Start KServe's Python server, which speaks binary tensors, with ``sums``."""
    (port,) = free_ports(1)
    process = ServerProcess([python_of("kserve"), "-c", _KSERVE, str(port)], folder, COMPILING)
    return PeerServer(process, f"http://127.0.0.1:{port}", "/v2/models/sums/ready")


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, timeout=5).status_code == 200
    return False
