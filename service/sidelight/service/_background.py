"""Work in a thread beside a stage, one job at a time."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Background(Generic[Result]):
    """A stage hands a job over, goes on, and takes the result at one of its next steps.

    Parameters
    ----------
    name : str
        Of the thread.

    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._results: list[Result] = []
        self._errors: list[Exception] = []

    @property
    def is_busy(self) -> bool:
        """Whether a job runs, or its result was not taken."""
        return self._thread is not None

    def start(self, work: Callable[[], Result]) -> None:
        """Begin a job; there must be none."""
        self._thread = threading.Thread(target=self._run, args=(work,), name=self._name)
        self._thread.start()

    def take(self) -> list[Result]:
        """Return the result of a job that is done, once; nothing while it runs.

        Raises
        ------
        Exception
            Whatever the job raised.

        """
        if self._thread is None or self._thread.is_alive():
            return []
        self.wait()
        self._thread = None
        results, self._results = self._results, []
        if self._errors:
            raise self._errors.pop()
        return results

    def wait(self) -> None:
        """Wait for the job's end; its result can be taken then."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, work: Callable[[], Result]) -> None:
        try:
            self._results.append(work())
        except Exception as error:  # noqa: BLE001 - raised again where the result is taken
            self._errors.append(error)
