"""What the whole sidecar costs beside nginx with ``mirror``: CPU per request, in one run.

    python tests/benchmarks/bench_sidecar.py [--seconds 3] [--rounds 3]

Needs ``wrk`` and ``nginx`` (with the mirror module, which is built in) and says so when one is
missing. The proxy runs as users run it, with its emitter and spool, and sends both bodies of each
exchange as CloudEvents; nginx sends a copy of the request only. The naive peer does what the
sidecar does with Starlette and httpx. Behind all is the same server that answers from memory, and
the same kind of server takes what they send. Rounds alternate between the peers, so that a slow
moment of the machine meets all; the CPU time is that of their own processes, so it holds on a busy
machine where requests per second do not.
"""

import argparse
import statistics
import time

# What runs beside it; a module in the folder of this script.
from sidecar_peers import Peers, missing, v2_body  # type: ignore[import-not-found]  # see above

_MEGABYTE = b"[" + b"0.5," * 262_143 + b"1]"


def _median_ratio(ours: list[float], theirs: list[float]) -> str:
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})"


def _measure(
    peers: Peers, names: tuple[str, ...], connections: int, body: bytes, options: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    costs: dict[str, list[float]] = {name: [] for name in names}
    rates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            began = peers.cpu_s(name)
            load = peers.load(name, connections, options.seconds, body)
            # What was captured must have been sent as well to count in full.
            time.sleep(0.5)
            costs[name].append((peers.cpu_s(name) - began) / load.count * 1e6)
            rates[name].append(load.rate)
    return costs, rates


def _saturated(peers: Peers, options: argparse.Namespace) -> None:
    for rows in (1, 64):
        body = v2_body(rows)
        for connections in (16, 64):
            names = ("sidecar", "nginx")
            costs, rates = _measure(peers, names, connections, body, options)
            ours, theirs = costs["sidecar"], costs["nginx"]
            print(
                f"{connections} connections, {rows}x20, {len(body)} bytes: "
                f"sidecar {statistics.median(ours):.1f} us of CPU a request "
                f"({1e6 / statistics.median(ours):.0f} requests/s on a core; "
                f"{statistics.median(rates['sidecar']):.0f}/s here), "
                f"nginx with mirror {statistics.median(theirs):.1f} us "
                f"({statistics.median(rates['nginx']):.0f}/s here), "
                f"ratio {_median_ratio(ours, theirs)}"
            )


def _beside_naive(peers: Peers, options: argparse.Namespace) -> None:
    body = v2_body(1)
    for connections in (16, 64):
        names = ("sidecar", "naive")
        costs, rates = _measure(peers, names, connections, body, options)
        ours, theirs = rates["sidecar"], rates["naive"]
        print(
            f"{connections} connections, 1x20: sidecar {statistics.median(ours):.0f} requests/s, "
            f"Starlette with httpx {statistics.median(theirs):.0f}, ratio "
            f"{_median_ratio(ours, theirs)}; CPU a request "
            f"{statistics.median(costs['naive']):.0f} us, ratio "
            f"{_median_ratio(costs['naive'], costs['sidecar'])}"
        )


def _long_bodies(peers: Peers, options: argparse.Namespace) -> None:
    names = ("sidecar", "nginx")
    costs, rates = _measure(peers, names, 4, _MEGABYTE, options)
    print(
        f"4 connections, 1 MiB: sidecar {statistics.median(rates['sidecar']):.0f} MiB/s, "
        f"nginx with mirror {statistics.median(rates['nginx']):.0f}, "
        f"ratio {_median_ratio(rates['sidecar'], rates['nginx'])}; CPU a request "
        f"{statistics.median(costs['sidecar']):.0f} us and {statistics.median(costs['nginx']):.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if names := missing():
        print(f"not measured: {' and '.join(names)} must be installed")
        return
    peers = Peers()
    try:
        model = peers.model()
        peers.nginx(model)
        peers.sidecar(model)
        peers.naive(model)
        for name in ("nginx", "sidecar", "naive"):
            peers.load(name, 4, 1, v2_body(1))
        _saturated(peers, options)
        _long_bodies(peers, options)
        _beside_naive(peers, options)
    finally:
        peers.close()


if __name__ == "__main__":
    main()
