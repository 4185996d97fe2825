"""The demo's model as a child process: started, asked for its port, ended with its parent."""

import subprocess
import sys
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import msgspec

from sidelight.service.demo.errors import ModelNotReady


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What the model's process says when it is ready.

    Parameters
    ----------
    port : int
        On 127.0.0.1.
    auc : float, in [0, 1]
        Area under the ROC curve on the last two weeks of March, fitted without them.
    n_rows : int
        Flights that the model was fitted to.
    threshold : float, in (0, 1)
        Probability from which the answer is "late".
    train_seconds, start_seconds : float
        Of fitting, and of everything up to the open port.

    """

    port: int
    auc: float
    n_rows: int
    threshold: float
    train_seconds: float
    start_seconds: float

    @property
    def url(self) -> str:
        """Where the V2 protocol is spoken."""
        return f"http://127.0.0.1:{self.port}"


class ModelProcess:
    """A running model server; a context manager that ends it.

    ``ModelProcess()`` returns at once, so that other parts can start meanwhile; ``ready()`` waits.

    Parameters
    ----------
    port : int, default 0
        0 takes any free one.

    """

    def __init__(self, *, port: int = 0) -> None:
        command = [sys.executable, "-P", "-m", "sidelight.service.demo._model_server"]
        self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [*command, "--port", str(port), "--until-stdin-ends"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # The terminal's Ctrl-C is for the demo, which then ends this process in its order.
            start_new_session=True,
        )
        self._facts: ModelFacts | None = None

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, None while it runs."""
        return self._process.poll()

    def ready(self, *, timeout_s: float = 180.0) -> ModelFacts:
        """Wait until the model is trained and its port is open.

        Raises
        ------
        ModelNotReady
            If the process ends before, or ``timeout_s`` passes.

        """
        if self._facts is None:
            # Reading a pipe knows no deadline; ending the process ends the reading.
            alarm = threading.Timer(timeout_s, self._process.kill)
            alarm.start()
            try:
                assert self._process.stdout is not None  # noqa: S101 - it is a pipe
                line = self._process.stdout.readline()
            finally:
                alarm.cancel()
            if not line:
                code = self._process.wait()
                raise ModelNotReady(f"exit code {code} within {timeout_s:.0f} s")
            self._facts = msgspec.json.decode(line, type=ModelFacts)
        return self._facts

    def wait(self, timeout_s: float = 10.0) -> int:
        """Wait for its end and return the exit code; raise ``TimeoutError`` after ``timeout_s``."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"the demo's model still runs after {timeout_s} s") from error

    def stop(self, *, grace_s: float = 5.0) -> int:
        """End the process, gracefully if it does so within ``grace_s``; return its exit code."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            code = self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
