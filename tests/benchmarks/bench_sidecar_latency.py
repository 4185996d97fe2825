"""What the sidecar adds to an answer: latency beside direct calls and nginx, in one run.

    python tests/benchmarks/bench_sidecar_latency.py [--seconds 2] [--rounds 5]

At one connection before a server that answers from memory; at 16 before a model behind FastAPI,
which has a core for itself, as in a pod whose model is what limits it (at least two are needed);
and to the first chunk of a stream. Needs ``wrk`` and ``nginx`` and says so when one is missing.
Latencies suffer from everything else that runs: the rounds alternate, and medians of them count.
"""

import argparse
import socket
import statistics
import time

# What runs beside it; a module in the folder of this script.
from sidecar_peers import Load, Peers, missing, v2_body  # type: ignore[import-not-found]  # above

_WAYS = ("direct", "sidecar", "nginx")
_STREAMS = 200


def _loads(peers: Peers, connections: int, options: argparse.Namespace) -> dict[str, list[Load]]:
    loads: dict[str, list[Load]] = {name: [] for name in _WAYS}
    for name in _WAYS:
        peers.load(name, connections, 1, v2_body(1))
    for _ in range(options.rounds):
        for name in _WAYS:
            loads[name].append(peers.load(name, connections, options.seconds, v2_body(1)))
    return loads


def _one_connection(peers: Peers, options: argparse.Namespace) -> None:
    loads = _loads(peers, 1, options)
    p50 = {name: statistics.median(load.p50_us for load in loads[name]) for name in _WAYS}
    print(
        f"1 connection: direct {p50['direct']:.0f} us in the median, "
        f"sidecar +{p50['sidecar'] - p50['direct']:.0f}, nginx with mirror "
        f"+{p50['nginx'] - p50['direct']:.0f}, ratio of what is added "
        f"{(p50['sidecar'] - p50['direct']) / (p50['nginx'] - p50['direct']):.2f}"
    )


def _before_fastapi(peers: Peers, options: argparse.Namespace) -> None:
    loads = _loads(peers, 16, options)
    p99 = {name: statistics.median(load.p99_us for load in loads[name]) for name in _WAYS}
    p50 = {name: statistics.median(load.p50_us for load in loads[name]) for name in _WAYS}
    print(
        f"16 connections before FastAPI: p99 direct {p99['direct'] / 1e3:.2f} ms, ratio of the "
        f"sidecar {p99['sidecar'] / p99['direct']:.2f}, of nginx with mirror "
        f"{p99['nginx'] / p99['direct']:.2f}; p50 direct {p50['direct'] / 1e3:.2f} ms, ratios "
        f"{p50['sidecar'] / p50['direct']:.2f} and {p50['nginx'] / p50['direct']:.2f}"
    )


def _first_chunks(peers: Peers) -> None:
    times: dict[str, list[float]] = {"direct": [], "sidecar": []}
    request = b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]"
    clients = {
        name: socket.create_connection(("127.0.0.1", peers.ports[name]), 10) for name in times
    }
    for _ in range(_STREAMS):
        for name, client in clients.items():
            began = time.perf_counter()
            client.sendall(request)
            data = b""
            while b"data: 0\n" not in data:
                data += client.recv(65536)
            times[name].append(time.perf_counter() - began)
            while not data.endswith(b"0\r\n\r\n"):
                data += client.recv(65536)
    for client in clients.values():
        client.close()
    direct, sidecar = (statistics.median(times[name]) * 1e6 for name in ("direct", "sidecar"))
    print(
        f"first chunk of a stream whose second comes 5 ms later: direct {direct:.0f} us in the "
        f"median, sidecar +{sidecar - direct:.0f}, ratio {sidecar / direct:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if names := missing():
        print(f"not measured: {' and '.join(names)} must be installed")
        return
    peers = Peers()
    try:
        model = peers.model()
        peers.nginx(model)
        peers.sidecar(model)
        _one_connection(peers, options)
    finally:
        peers.close()
    peers = Peers()
    try:
        model = peers.fastapi()
        peers.nginx(model)
        peers.sidecar(model)
        peers.give_a_core("direct")
        _before_fastapi(peers, options)
    finally:
        peers.close()
    peers = Peers()
    try:
        peers.sidecar(peers.streaming())
        _first_chunks(peers)
    finally:
        peers.close()


if __name__ == "__main__":
    main()
