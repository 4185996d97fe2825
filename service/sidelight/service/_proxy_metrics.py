"""Metrics of the proxy itself, beside those of its emitter, in the Prometheus text format 0.0.4."""

import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, Literal

from sidelight.logger import Connections, Upstream

if TYPE_CHECKING:
    from sidelight.logger.grpc import GrpcProxy

Outcome = Literal["applied", "partly", "refused"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("applied", "partly", "refused")

_PREFIX: Final = "sidelight_capture_"


@dataclass(slots=True, kw_only=True)
class ProxyState:
    """What the proxy has to tell of itself; it changes while it runs.

    Attributes
    ----------
    connections : Connections
        Of the listener for HTTP.
    upstream : Upstream or None
        Where new connections go.
    grpc : GrpcProxy or None
        The listener for gRPC.
    reloads : Counter of str
        Reloads by outcome.
    is_valid : bool
        Whether the file is what runs.
    is_stopping : bool
        Whether the end was asked for.

    """

    connections: Connections
    upstream: Upstream | None
    grpc: "GrpcProxy | None" = None
    reloads: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(OUTCOMES, 0)))
    is_valid: bool = True
    is_stopping: bool = False


# Name, kind, help, values by further labels.
_METRICS: Final[tuple[tuple[str, str, str, Callable[[ProxyState], Mapping[str, float]]], ...]] = (
    (
        "connections",
        "gauge",
        "Open connections of clients.",
        lambda state: {"": len(state.connections)},
    ),
    (
        "requests_total",
        "counter",
        "Requests whose head was understood.",
        lambda state: {"": state.connections.requests},
    ),
    (
        "refused_requests_total",
        "counter",
        "Requests answered with an error of the proxy's own: bad syntax, too long, no upstream.",
        lambda state: {"": state.connections.refused},
    ),
    (
        "exchanges_total",
        "counter",
        "Requests with their answers that were offered to the emitter.",
        lambda state: {"": state.connections.captured},
    ),
    (
        "tap_errors_total",
        "counter",
        "Exchanges that were lost because capturing them failed.",
        lambda state: {"": state.connections.tap_errors},
    ),
    (
        "captured_bytes",
        "gauge",
        "Bytes of bodies that are kept of requests in work.",
        lambda state: {"": state.connections.captured_bytes},
    ),
    (
        "upstream_errors_total",
        "counter",
        "Requests answered with 502 or 504, or cut in the middle, because the model failed.",
        lambda state: {"": state.connections.upstream_errors},
    ),
    (
        "upstream_retries_total",
        "counter",
        "Requests sent a second time because a kept connection had gone stale.",
        lambda state: {"": state.connections.retried},
    ),
    (
        "upstream_connections",
        "gauge",
        "Connections to the model, by state.",
        lambda state: _upstream_connections(state.upstream),
    ),
    (
        "grpc_calls_total",
        "counter",
        "Calls of gRPC that came in.",
        lambda state: {"": state.grpc.counts.calls} if state.grpc else {},
    ),
    (
        "grpc_calls_in_flight",
        "gauge",
        "Calls of gRPC in work.",
        lambda state: {"": state.grpc.counts.in_flight} if state.grpc else {},
    ),
    (
        "grpc_exchanges_total",
        "counter",
        "Inferences of gRPC that were offered to the emitter.",
        lambda state: {"": state.grpc.counts.captured} if state.grpc else {},
    ),
    (
        "grpc_tap_errors_total",
        "counter",
        "Inferences of gRPC that were lost because capturing them failed.",
        lambda state: {"": state.grpc.counts.tap_errors} if state.grpc else {},
    ),
    (
        "grpc_captured_bytes",
        "gauge",
        "Bytes of messages that are kept of calls in work.",
        lambda state: {"": state.grpc.counts.captured_bytes} if state.grpc else {},
    ),
    (
        "grpc_upstream_errors_total",
        "counter",
        "Calls that ended because the model could not be reached or broke them.",
        lambda state: {"": state.grpc.counts.upstream_errors} if state.grpc else {},
    ),
    (
        "reloads_total",
        "counter",
        "Reloads of the configuration, by outcome.",
        lambda state: {f'outcome="{name}"': n for name, n in state.reloads.items()},
    ),
    (
        "config_valid",
        "gauge",
        "1 while the file, as it was last read, is what runs; otherwise 0.",
        lambda state: {"": int(state.is_valid)},
    ),
    (
        "build_info",
        "gauge",
        "Always 1; the labels tell what runs.",
        lambda _: {f'version="{version("sidelight")}",python="{platform.python_version()}"': 1},
    ),
)


def proxy_metrics(state: ProxyState, *, namespace: str, deployment: str) -> bytes:
    """Return the metrics.

    Parameters
    ----------
    state : ProxyState
        Read now.
    namespace, deployment : str
        Labels of every sample; ``deployment`` is the bare name.

    """
    common = f'namespace="{_escaped(namespace)}",deployment="{_escaped(deployment)}"'
    return "".join(f"{line}\n" for line in _lines(state, common)).encode()


def _lines(state: ProxyState, common: str) -> Iterator[str]:
    for name, kind, text, values in _METRICS:
        yield f"# HELP {_PREFIX}{name} {text}"
        yield f"# TYPE {_PREFIX}{name} {kind}"
        for labels, value in values(state).items():
            yield f"{_PREFIX}{name}{{{','.join(filter(None, (common, labels)))}}} {value}"


def _upstream_connections(upstream: Upstream | None) -> Mapping[str, float]:
    if upstream is None:
        return {}
    n_open, n_idle = upstream.open_connections, upstream.idle_connections
    return {'state="busy"': n_open - n_idle, 'state="idle"': n_idle}


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
