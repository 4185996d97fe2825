"""One explained row's account with a live model: what it asks, knows and has cost."""

from concurrent.futures import FIRST_COMPLETED, Future, wait
from hashlib import blake2b
from threading import Event

import numpy as np
from numpy.typing import NDArray

from sidelight.explainers._grid import Codes, Grid, distinct
from sidelight.explainers._pacing import Limits
from sidelight.explainers._predicting import Answer, Predict, Target
from sidelight.explainers._rows import Columns
from sidelight.explainers._sharing import SharedLoad, Usage
from sidelight.explainers.errors import (
    BadAnswer,
    DeadlineExceeded,
    ModelError,
    ModelUnavailable,
    VersionChanged,
)

# Locks take no time-out beyond what the platform counts; a deadline may be without end.
_LONGEST_WAIT_S = 3_600.0
# Of a prediction: sums and squares of smaller ones do not overflow.
_LARGEST = 1e150


class Session:
    """Asks one model for coded rows, each distinct row once, until a deadline."""

    def __init__(
        self,
        shared: SharedLoad,
        model: Predict,
        target: Target,
        grid: Grid,
        *,
        deadline: float,
        output: int,
    ) -> None:
        self.grid = grid
        self.usage = Usage()
        self.versions: set[str] = set()
        self._shared = shared
        self._model = model
        self._target = target
        self._deadline = deadline
        self._output = output
        self._known: dict[bytes, float] = {}
        self._version = shared.served_version(target)
        self._relied_on_version = False
        self._stop = Event()

    @property
    def seconds_left(self) -> float:
        """Until the deadline; not above zero when it has passed."""
        return self._deadline - self._shared.clock()

    def novel(self, codes: Codes) -> NDArray[np.bool_]:
        """Tell which rows would be asked: the first of each that was not asked before."""
        first, _ = distinct(codes)
        mask = np.zeros(len(codes), dtype=np.bool_)
        fresh = [row not in self._known for row in _records(codes[first])]
        mask[first[np.array(fresh, dtype=np.bool_)]] = True
        return mask

    def asked(self) -> Codes:
        """Return the distinct rows answered so far, as codes."""
        width, kind = self.grid.background.shape[1], self.grid.background.dtype
        return np.frombuffer(b"".join(self._known), dtype=kind).reshape(-1, width)

    def ask(self, codes: Codes) -> NDArray[np.float64]:
        """Return the model's answers to coded rows.

        Parameters
        ----------
        codes : integer array, shape (n_rows, n_features)
            Rows of the session's grid; earlier rows are sent first.

        Returns
        -------
        NDArray of float64, shape (n_rows,)

        Raises
        ------
        ModelError
            Down, rubbish or too late; ``answers`` holds what is there, NaN elsewhere.

        """
        first, inverse = distinct(codes)
        rows = codes[first]
        names = _records(rows)
        missing = np.array([i for i, name in enumerate(names) if name not in self._known], int)
        try:
            if missing.size:
                self._fetch(rows[missing], [names[index] for index in missing.tolist()])
        except ModelError as error:
            error.answers = self._look_up(names)[inverse]
            raise
        return self._look_up(names)[inverse]

    def ask_until_cut(self, codes: Codes) -> tuple[NDArray[np.float64], ModelError | None]:
        """Return what ``ask`` returns, or what had come when it was cut short, and the reason.

        Raises
        ------
        VersionChanged
            Always: what had come before is another model's.

        """
        try:
            return self.ask(codes), None
        except VersionChanged:
            raise
        except ModelError as error:
            nothing = np.full(len(codes), np.nan)
            return (nothing if error.answers is None else error.answers), error

    def _look_up(self, names: list[bytes]) -> NDArray[np.float64]:
        return np.array([self._known.get(name, np.nan) for name in names])

    def _fetch(self, rows: Codes, names: list[bytes]) -> None:
        answers = self._shared.answers
        digests = self.grid.row_digests(rows, self._file_key(self._version))
        found = answers.recall(digests)
        hits = {name: value for name, value in zip(names, found, strict=True) if value is not None}
        self._known.update(hits)
        if hits:
            self._rely_on(self._version)
        self._shared.count_asked(self.usage, unique=len(names), hits=len(hits))
        unknown = np.array([index for index, value in enumerate(found) if value is None], int)
        if unknown.size:
            self._send_all(rows[unknown], [names[index] for index in unknown.tolist()])

    def _file_key(self, version: str | None) -> bytes:
        target = self._target
        parts = repr((target.deployment, target.version, target.output, self._output, version))
        return blake2b(parts.encode(), digest_size=32).digest()

    def _rely_on(self, version: str | None) -> None:
        if self._relied_on_version and version != self._version:
            raise VersionChanged(
                "model version within one explanation",
                expected=f"{self._version!r} throughout",
                got=f"{version!r}; configure the URL of one version",
            )
        self._version = version
        self._relied_on_version = True
        if version is not None:
            self.versions.add(version)

    def _send_all(self, rows: Codes, names: list[bytes]) -> None:
        limits = self._shared.limits
        chunks = iter(_chunks(self.grid.row_bytes(rows), limits))
        open_calls: dict[Future[Answer], slice] = {}
        try:
            while True:
                while len(open_calls) < limits.calls_in_flight and (part := next(chunks, None)):
                    call = self._shared.pool.submit(self._send, rows[part])
                    open_calls[call] = part
                if not open_calls:
                    return
                patience_s = min(max(self.seconds_left, 0), _LONGEST_WAIT_S)
                done, _ = wait(open_calls, patience_s, FIRST_COMPLETED)
                if not done and self.seconds_left <= 0:
                    raise self._too_late()
                self._keep_all({call: open_calls.pop(call) for call in done}, rows, names)
        finally:
            # After a failure, whoever waits in the pool or at the pace need not ask any more.
            if open_calls:
                self._stop.set()
            for call in open_calls:
                call.cancel()

    def _keep_all(self, done: dict[Future[Answer], slice], rows: Codes, names: list[bytes]) -> None:
        # What came is kept even when a sibling failed: a valid estimate may need it.
        failure: ModelError | None = None
        for call, part in done.items():
            try:
                answer = call.result()
                self._keep(answer, rows[part], names[part])
            except ModelError as error:
                failure = error
        if failure is not None:
            raise failure

    def _keep(self, answer: Answer, rows: Codes, names: list[bytes]) -> None:
        self._shared.note_version(self._target, answer.version)
        self._rely_on(answer.version)
        values = answer.values[:, self._output].tolist()
        digests = self.grid.row_digests(rows, self._file_key(answer.version))
        self._shared.answers.remember(zip(digests, values, strict=True))
        self._known.update(zip(names, values, strict=True))

    def _send(self, rows: Codes) -> Answer:
        pause = self._shared.pace.book(len(rows), until=self._deadline)
        if pause is None:
            raise self._too_late()
        if pause > 0 and self._stop.wait(pause):
            raise self._too_late()
        columns = self.grid.values(rows)
        try:
            return self._call(columns, len(rows))
        except ModelUnavailable as error:
            # The deadline ends a call by its time-out: that is no fault of the model.
            if self.seconds_left <= 0:
                raise self._too_late() from error
            if not error.again:
                raise
        return self._call(columns, len(rows))

    def _call(self, columns: Columns, n_rows: int) -> Answer:
        timeout_s = min(self.seconds_left, self._shared.limits.call_timeout_s)
        if timeout_s <= 0:
            raise self._too_late()
        self._shared.count_sent(self.usage, calls=1, rows=n_rows)
        try:
            return _checked(self._model.predict(columns, timeout_s=timeout_s), n_rows, self._output)
        except ModelUnavailable as error:
            if not error.reached:
                self._shared.count_sent(self.usage, calls=-1, rows=-n_rows)
            raise

    def _too_late(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"the deadline passed after {self.usage.model_rows} rows in "
            f"{self.usage.model_calls} calls; allow more time or fewer rows"
        )


def _records(codes: Codes) -> list[bytes]:
    packed = np.ascontiguousarray(codes)
    width = packed.dtype.itemsize * packed.shape[1]
    joined = packed.tobytes()
    return [joined[start : start + width] for start in range(0, len(joined), width)]


def _chunks(row_bytes: NDArray[np.int64], limits: Limits) -> list[slice]:
    chunks = []
    start, size = 0, 0
    for index, n_bytes in enumerate(row_bytes.tolist()):
        full = index - start == limits.rows_at_once or size + n_bytes > limits.bytes_per_call
        if full and index > start:
            chunks.append(slice(start, index))
            start, size = index, 0
        size += n_bytes
    chunks.append(slice(start, len(row_bytes)))
    return chunks


def _checked(answer: Answer, n_rows: int, output: int) -> Answer:
    shape = answer.values.shape
    if len(shape) != 2 or shape[0] != n_rows or shape[1] <= output:  # noqa: PLR2004
        expected = f"shape ({n_rows}, more than {output})"
        raise BadAnswer("predictions", expected=expected, got=f"shape {shape}")
    # NaN is not below anything.
    bad = int(np.count_nonzero(~(np.abs(answer.values[:, output]) < _LARGEST)))
    if bad:
        got = f"{bad} of {n_rows} missing, not finite or beyond {_LARGEST:g}"
        raise BadAnswer("predictions", expected="finite numbers", got=got)
    return answer
