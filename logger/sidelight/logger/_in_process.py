"""What the ways of capture inside the model's process have in common: where it goes."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from sidelight.logger._emitter import Emitter
from sidelight.logger._emitter_capture import Capture
from sidelight.logger._emitter_thread import ThreadedEmitter
from sidelight.logger._outlet import SpoolFolder
from sidelight.logger._sink import Sink
from sidelight.logger._sink_http import HttpSink

SinkOption = str | Callable[[], Sink] | ThreadedEmitter
"""The address of an HTTP sink; or makes a sink, in each process; or an emitter to share."""

_SOURCE: Final = "sidelight-in-process"
_SPOOL: Final = "sink"


def emitter_of(
    sink: SinkOption, *, deployment: str | None, spool: Path | str | None
) -> ThreadedEmitter:
    """Return the emitter that options ask for.

    Raises
    ------
    ValueError
        When an address or a name cannot be used, or an emitter is given with settings of its own.

    """
    if isinstance(sink, ThreadedEmitter):
        if deployment is not None or spool is not None:
            raise ValueError(
                "sink: expected an address beside deployment and spool, got an emitter, which has "
                "its own; give them where it is made"
            )
        return sink
    make_sink = _maker(sink)
    # What is wrong is said here, and not on a thread when the first request comes.
    Capture(deployment=deployment)

    def make(folder: Path | None) -> Emitter:
        return Emitter.of(
            make_sink(),
            spool=None if folder is None else SpoolFolder(folder=folder / _SPOOL),
            capture=Capture(source=_SOURCE, deployment=deployment),
        )

    return ThreadedEmitter(make, spool=None if spool is None else Path(spool))


def _maker(sink: str | Callable[[], Sink]) -> Callable[[], Sink]:
    if not isinstance(sink, str):
        return sink
    HttpSink(sink)
    return lambda: HttpSink(sink)
