"""Which index a row stands in: one a day, as long as there are not too many days."""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

OTHER: Final = "other-times"
"""In the place of a date: the rows of all days that got no index of their own."""

DAY: Final = re.compile(r"-([0-9]{4}-[0-9]{2}-[0-9]{2})$")

# Of these days there is always an index: a clock that is a day wrong is not unusual.
_NEAR: Final = timedelta(days=2)


class Days:
    """The days that have an index, by the stem of its name.

    The time of a request comes from whoever sent it. A clock that jumps would make an index a day
    for thousands of days, until a cluster takes no more of them.

    Parameters
    ----------
    indices : callable
        Returns the names of the indices that a stem has.
    most : int
        Days of one stem; rows of further days share one index, except those around today.
    today : callable
        Returns the time.

    """

    def __init__(
        self,
        indices: Callable[[str], Iterable[str]],
        *,
        most: int,
        today: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._indices = indices
        self._most = most
        self._today = today
        self._known: dict[str, set[str]] = {}

    def index_of(self, stem: str, date: str) -> str:
        """Return the name of the index of a day, as ``2013-01-01``."""
        known = self._known.get(stem)
        if known is None:
            known = self._known[stem] = self._read(stem)
        if date not in known:
            if len(known) >= self._most and not self._is_near(date):
                return f"{stem}-{OTHER}"
            known.add(date)
        return f"{stem}-{date}"

    def forget(self) -> None:
        """Look again: indices may have been deleted since."""
        self._known.clear()

    def _read(self, stem: str) -> set[str]:
        found = (DAY.search(name) for name in self._indices(stem))
        return {match[1] for match in found if match}

    def _is_near(self, date: str) -> bool:
        today = self._today()
        return f"{today - _NEAR:%Y-%m-%d}" <= date <= f"{today + _NEAR:%Y-%m-%d}"
