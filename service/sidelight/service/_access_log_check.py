"""Whether the access log is line for line what was written."""

from dataclasses import dataclass
from pathlib import Path

import orjson

from sidelight.logger import LogHead
from sidelight.service._access_lines import START, digest_of, lines_of, missing_from, paths_of


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessReport:
    """What a check of the log found.

    Parameters
    ----------
    entries : int
        Its number of entries.
    findings : tuple of str
        What is wrong with them.
    unsigned : int or None
        How many came after the last signature; None when the checkpoint does not cover the log.

    """

    entries: int
    findings: tuple[str, ...]
    unsigned: int | None = None


def verify_access_log(data: Path, signed: LogHead | None = None) -> AccessReport:
    """Check the chain from the first entry to the last.

    What was cut off at its end leaves no trace in a chain, but for what a checkpoint has signed.

    Parameters
    ----------
    data : Path
        The data folder.
    signed : LogHead, optional
        How far the log went, as the checkpoint says; read before this is called.

    """
    previous, entries, findings = START, 0, []
    for path in paths_of(data / "access"):
        try:
            for number, line in enumerate(lines_of(path), 1):
                entries += 1
                if _previous(line) != previous:
                    findings.append(
                        f"access/{path.name}: line {number} does not follow the one before it"
                    )
                previous = digest_of(line)
        except OSError as error:
            findings.append(_unreadable(path, error))
    if signed is None:
        return AccessReport(entries=entries, findings=tuple(findings))
    try:
        lost = missing_from(data / "access", signed)
    except OSError as error:
        lost = _unreadable(data / "access" / signed.file, error)
    if lost is not None and lost not in findings:
        findings.append(lost)
    unsigned = max(0, entries - signed.entries)
    return AccessReport(entries=entries, findings=tuple(findings), unsigned=unsigned)


def _previous(line: bytes) -> str | None:
    try:
        said: str = orjson.loads(line)["previous"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return said


def _unreadable(path: Path, error: OSError) -> str:
    return f"access/{path.name}: cannot be read: {error.strerror or error}"
