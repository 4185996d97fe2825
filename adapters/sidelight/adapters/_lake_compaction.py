"""Choosing small files of the lake that become one."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from sidelight.adapters._lake_file import LakeFile
from sidelight.logger._journal import Document

# Files of about one size are merged with each other, so that a row is written again at most once
# for each factor of 16 in size, not at every merge.
_TIER_FACTOR = 16
# Hot files are moved as a whole, and their rows stand in memory meanwhile.
_MOST_HOT_BYTES = 256 << 20
# Files of all sizes are merged together when they are this many times the threshold.
_CROWD = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """One merge that is written, and visible once its documents are committed.

    Parameters
    ----------
    documents : tuple of Document
        To be committed together: hide the old files, show the new one.
    obsolete : tuple of str
        Paths to be handed to ``Lake.remove`` some time after the commit; readers may hold them.
        They are keys of the manifest, too: when one of them is not visible any more, somebody
        else has replaced it, and the documents must not be committed.
    rows : int
        Of the new files.
    written : tuple of str, default empty
        Paths of the new files.

    """

    documents: tuple[Document, ...]
    obsolete: tuple[str, ...]
    rows: int
    written: tuple[str, ...] = ()


def choose(files: Iterable[LakeFile], *, min_files: int, target_rows: int) -> list[LakeFile]:
    """Return the files of the next merge in journal order, or none.

    They are of one deployment, table, layout, day and journal partition, and have the same columns.
    """
    small = sorted(
        (file for file in files if file.rows * 2 < target_rows and file.hot is None), key=_kind
    )
    for _, same in groupby(small, key=_kind):
        found = _of_one_kind(list(same), min_files, target_rows)
        if found:
            return found
    return []


def choose_hot(files: Iterable[LakeFile], *, min_files: int) -> list[LakeFile]:
    """Return the parts of the hot files that are moved next in journal order, or none."""
    hot: dict[str, list[LakeFile]] = {}
    for file in files:
        if file.hot is not None:
            hot.setdefault(file.entry, []).append(file)
    if not hot or len(hot) < min_files:
        return []
    taken: list[LakeFile] = []
    n_bytes = 0
    for entry in sorted(hot, key=lambda entry: (hot[entry][0].partition, hot[entry][0].first)):
        parts = hot[entry]
        streams = {part.hot.offset: part.bytes for part in parts if part.hot is not None}
        n_bytes += sum(streams.values())
        if taken and (n_bytes > _MOST_HOT_BYTES or parts[0].partition != taken[0].partition):
            break
        taken += parts
    return taken


def _kind(file: LakeFile) -> tuple[object, ...]:
    return file.table, file.deployment, file.partition, file.layout, file.columns, file.days


def _of_one_kind(files: list[LakeFile], min_files: int, target_rows: int) -> list[LakeFile]:
    if len(files) >= min_files * _CROWD:
        return _fill(files, target_rows)
    tiers = sorted(files, key=_tier)
    for _, tier in groupby(tiers, key=_tier):
        members = list(tier)
        if len(members) >= min_files:
            return _fill(members, target_rows)
    return []


def _tier(file: LakeFile) -> int:
    return int(math.log(max(file.rows, 1), _TIER_FACTOR))


def _fill(files: list[LakeFile], target_rows: int) -> list[LakeFile]:
    taken: list[LakeFile] = []
    n_rows = 0
    for file in sorted(files, key=lambda item: (item.first, item.last, item.path)):
        if taken and n_rows + file.rows > target_rows:
            break
        taken.append(file)
        n_rows += file.rows
    return taken if len(taken) > 1 else []
