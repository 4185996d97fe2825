"""Which files of the lake are visible."""

import sys
import threading
import time
from collections.abc import Callable, Iterable

from sidelight.adapters._lake_file import COLLECTION, LakeFile, TableName
from sidelight.adapters._lake_hot import SCHEMAS, Columns, parts_of
from sidelight.adapters._query_time import format_time, parse_time
from sidelight.logger._journal import Documents

# Entries are ordered by the moment they were made and become visible at their commit, which may
# be later: each reading goes back that far, and a whole reading now and then finds the rest.
_OVERLAP_US = 10_000_000
_WHOLE_AFTER_S = 60.0
_PAGE = 1_000


class Manifest:
    """The manifest, kept in memory and refreshed by what is new.

    Parameters
    ----------
    documents : Documents
        Where the entries are published.
    clock : callable
        Monotonic seconds.

    """

    def __init__(self, documents: Documents, clock: Callable[[], float] = time.monotonic) -> None:
        self._documents = documents
        self._clock = clock
        self._lock = threading.Lock()
        self._files: dict[str, tuple[LakeFile, ...]] = {}
        self._columns: dict[str, Columns] = {}
        self._removed: set[str] = set()
        self._orders: dict[str, str] = {}
        self._last = ""
        self._whole_at: float | None = None

    def files(
        self, table: TableName, *, deployment: str | None = None, fresh: bool = False
    ) -> list[LakeFile]:
        """Return the visible files of a table; ``fresh`` forgets what was known.

        Of a hot file each part is a file of its deployment.
        """
        with self._lock:
            self._refresh(fresh=fresh)
            return [
                file
                for parts in self._files.values()
                for file in parts
                if file.table == table and deployment in {None, file.deployment}
            ]

    def are_visible(self, entries: Iterable[str]) -> bool:
        """Whether all of these entries are visible now, as committed."""
        found = (self._documents.get(COLLECTION, entry) for entry in entries)
        return all(value is not None and not value.get("removed") for value in found)

    def removed(self) -> set[str]:
        """Return the paths that were hidden and whose files may still be there."""
        with self._lock:
            self._refresh(fresh=True)
            return set(self._removed)

    def _refresh(self, *, fresh: bool) -> None:
        now = self._clock()
        if fresh or self._whole_at is None or now - self._whole_at > _WHOLE_AFTER_S:
            self._files, self._removed, self._orders, self._last = {}, set(), {}, ""
            self._read(None)
            self._whole_at = now
        else:
            self._read(self._horizon())

    def _horizon(self) -> tuple[str, str] | None:
        if not self._last:
            return None
        return format_time(parse_time(self._last, "order") - _OVERLAP_US), ""

    def _read(self, after: tuple[str, str] | None) -> None:
        while True:
            page = self._documents.find(COLLECTION, descending=False, after=after, limit=_PAGE)
            for order, path, value in page:
                if self._orders.get(path) == order:
                    continue
                self._orders[path] = order
                if value.get("removed"):
                    self._files.pop(path, None)
                    self._removed.add(path)
                elif "parts" in value:
                    self._files[path] = parts_of(path, value, self._columns_of)
                else:
                    self._files[path] = (LakeFile.from_value(path, value),)
            if page:
                self._last = max(self._last, page[-1][0])
            if len(page) < _PAGE:
                return
            after = page[-1][0], page[-1][1]

    def _columns_of(self, digest: str) -> Columns:
        known = self._columns.get(digest)
        if known is None:
            value = self._documents.get(SCHEMAS, digest) or {}
            known = self._columns[digest] = tuple(
                (sys.intern(name), sys.intern(kind))
                for name, kind in value.get("columns", {}).items()
            )
        return known


def overlapping(
    files: Iterable[LakeFile],
    *,
    start_us: int | None = None,
    end_us: int | None = None,
    version: str | None = None,
) -> list[LakeFile]:
    """Return the files that may hold rows of a span of time, ``end_us`` excluded, and a version."""
    return [
        file
        for file in files
        if (start_us is None or file.max_us >= start_us)
        and (end_us is None or file.min_us < end_us)
        and (version is None or file.versions is None or version in file.versions)
    ]
