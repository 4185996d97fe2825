"""The demo's model in a process of its own: ``python -m sidelight.service.demo._model_server``.

When the model is trained and the port open, one line of JSON goes to standard output:
``{"port", "auc", "n_rows", "threshold", "train_seconds", "start_seconds"}``.
"""

import argparse
import json
import os
import socket
import sys
import threading
import time

import uvicorn
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # has no types

from sidelight.service.demo._flights import load_flights
from sidelight.service.demo._model import FlightModel, train_model
from sidelight.service.demo._model_app import ModelApp


def main(arguments: list[str] | None = None) -> None:
    """Train, open the port, say so, and serve until stopped."""
    options = _parser().parse_args(arguments)
    started = time.perf_counter()
    # First of all, so that a taken port is said before the work.
    with socket.create_server((options.host, options.port), backlog=1024) as listener:
        model = train_model(load_flights(), seed=options.seed)
        server = uvicorn.Server(_config(model))
        if options.until_stdin_ends:
            threading.Thread(target=_stop_when_stdin_ends, args=(server,), daemon=True).start()
        port = listener.getsockname()[1]
        print(_ready_line(model, port, time.perf_counter() - started), flush=True)  # noqa: T201
        # More threads than one cannot help a few rows, and spin on the cores that others need.
        with threadpool_limits(limits=1):
            server.run(sockets=[listener])


def _config(model: FlightModel) -> uvicorn.Config:
    return uvicorn.Config(
        ModelApp(model),
        lifespan="off",
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        # Longer than any pool of a proxy keeps an idle connection: none is cut in its hands.
        timeout_keep_alive=300,
        timeout_graceful_shutdown=2,
    )


def _ready_line(model: FlightModel, port: int, seconds: float) -> str:
    facts = {
        "port": port,
        "auc": model.auc,
        "n_rows": model.n_rows,
        "threshold": model.threshold,
        "train_seconds": round(model.seconds, 3),
        "start_seconds": round(seconds, 3),
    }
    return json.dumps(facts)


def _stop_when_stdin_ends(server: uvicorn.Server) -> None:
    # The pipe closes when the parent ends, however it ends, so that no process is left behind.
    # Past sys.stdin: a thread that holds its lock makes the interpreter abort at its end.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    server.should_exit = True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sidelight-demo-model", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--seed", type=int, default=2013)
    parser.add_argument("--until-stdin-ends", action="store_true")
    return parser


if __name__ == "__main__":
    main()
