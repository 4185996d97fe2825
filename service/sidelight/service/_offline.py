"""Commands that work on a data folder, whether the service runs or not."""

import sys
from pathlib import Path

from sidelight.logger import read_public_key, verify
from sidelight.logger._sealed_verify import verify_sealed
from sidelight.logger._segments_folder import check_version, lacks_version
from sidelight.logger.errors import JournalError
from sidelight.service._access_log import AccessLog, command_entry
from sidelight.service._access_log_check import AccessReport, verify_access_log
from sidelight.service.errors import ServiceError

_USAGE = 2


def run_verify(data: Path, public_key: str | None = None, *, sealed_only: bool = False) -> int:
    """Check the archive; print what was found; return 0 when intact, else 1."""
    if not (data / "raw").is_dir():
        if not (data / "format").exists():
            return _fail(f"--data: expected a data folder, got {data}: there is no archive in it")
        # A data folder without its archive is not a wrong path but the greatest loss.
        sys.stdout.write("raw: is missing\n")
    try:
        check_version(data)
        key = None if public_key is None else read_public_key(public_key)
        report = verify(data, public_key=key, sealed_only=sealed_only)
    except JournalError as error:
        return _fail(str(error))
    access = verify_access_log(data, report.access)
    sealed = verify_sealed(data)
    unsaid = ("format: is missing",) if lacks_version(data) else ()
    findings = (*unsaid, *report.findings, *sealed.findings, *access.findings)
    for finding in findings:
        sys.stdout.write(f"{finding}\n")
    if sealed.sealed and sealed.unchecked:
        sys.stdout.write(f"sealed events were not opened: {sealed.unchecked}\n")
    word = "NOT INTACT" if findings else "intact"
    retired = f"{report.retired} records retired, " if report.retired else ""
    unsigned = (
        f"{report.unsigned} records since the last signature, "
        if report.key and report.unsigned
        else ""
    )
    adopted = f"{report.adopted} records of before the first signature, " if report.adopted else ""
    # Who opened nothing cannot say how many are erased.
    opened = "none of them opened" if sealed.unchecked else f"{sealed.erased} of them erased"
    erased = f"{sealed.sealed} events sealed, {opened}, " if sealed.sealed else ""
    sys.stdout.write(
        f"{word}: {report.records} records, {report.bytes} bytes in {report.segments} segments, "
        f"{adopted}{unsigned}{retired}{erased}{_entries(access)}, "
        f"{f'signed by {report.key}' if report.key else 'not signed'}\n"
    )
    return 1 if findings else 0


def _entries(access: AccessReport) -> str:
    if access.unsigned is None:
        since = " (its end is not signed)"
    else:
        since = f" ({access.unsigned} since the last signature)" if access.unsigned else ""
    return f"{access.entries} entries of the access log{since}"


def run_backup(data: Path, target: Path, keys: Path | None = None) -> int:
    """Copy a data folder; print what the copy holds; return 0 when it is intact, else 1."""
    from sidelight.service._backup import back_up  # noqa: PLC0415 - no other command needs it

    try:
        if (data / "format").exists():
            given = {"target": str(target), "keys": None if keys is None else str(keys)}
            AccessLog(data).append(command_entry("export --backup", given))
        report = back_up(data, target, keys=keys)
    except OSError as error:
        return _fail(f"the access log cannot be written: {error.strerror}; nothing is copied")
    except (ServiceError, JournalError) as error:
        return _fail(str(error))
    for finding in report.findings:
        sys.stdout.write(f"{finding}\n")
    if keys is None and (data / "keys" / "ring").exists():
        sys.stderr.write("the keys of sealed events are not in the copy: --keys copies them\n")
    word = "NOT INTACT" if report.findings else "intact"
    sys.stdout.write(
        f"{word}: {report.records} records, {report.files} files of the lake, "
        f"{report.bytes} bytes at {target}\n"
    )
    return 1 if report.findings else 0


def _fail(message: str) -> int:
    sys.stderr.write(f"sidelight: {message}\n")
    return _USAGE
