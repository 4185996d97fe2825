"""``sidelight hold``: legal holds, which keep what retention would delete."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sidelight.service._cli_options import DATA, Data, existing, fail

app = typer.Typer(help="Legal holds: what they cover is not deleted.", no_args_is_help=True)

Reason = Annotated[str, typer.Option(help="Why; it is kept with the hold and in the access log.")]


@app.command()
def add(
    deployment: Annotated[str, typer.Option(help="NS/NAME.")],
    reason: Reason,
    from_: Annotated[
        str | None, typer.Option("--from", help="Oldest time, included; RFC 3339.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="Newest time, excluded; RFC 3339.")] = None,
    data: Data = DATA,
) -> None:
    """Keep what a deployment has, whatever its retention says; prints the hold as JSON."""
    from sidelight.adapters import QueryError
    from sidelight.adapters._query_time import parse_time
    from sidelight.service._holds import Holds
    from sidelight.service._names import one_name
    from sidelight.service.errors import ServiceError

    try:
        name = one_name(deployment)
    except ValueError as error:
        fail(f"--deployment: {error}")
    try:
        from_us = None if from_ is None else parse_time(from_, "--from")
        to_us = None if to is None else parse_time(to, "--to")
        if from_us is not None and to_us is not None and from_us >= to_us:
            fail("--to: expected a later time than --from")
        caller = _note(data, "hold add", reason, deployment=name, **{"from": from_, "to": to})
        hold = Holds(data).add(name, reason=reason, by=caller, from_us=from_us, to_us=to_us)
    except QueryError as error:
        fail(str(error))
    except ServiceError as error:
        fail(str(error), error.hint)
    _show(hold)
    if not _has(data, name):
        sys.stderr.write(
            f"sidelight: nothing of {name} is stored here yet; is it the right name?\n"
        )


def _has(data: Path, deployment: str) -> bool:
    from contextlib import closing

    from sidelight.adapters import EmbeddedDocuments
    from sidelight.logger.errors import JournalError

    if not (data / "state.db").exists():
        return False
    try:
        with closing(EmbeddedDocuments(data)) as documents:
            return documents.get("deployments", deployment) is not None
    except JournalError:
        # The hold stands; who cannot look has nothing to say.
        return True


@app.command("list")
def list_holds(
    *,
    released: Annotated[bool, typer.Option(help="Those that have ended, too.")] = False,
    data: Data = DATA,
) -> None:
    """Print every hold as one line of JSON."""
    from sidelight.service._holds import Holds
    from sidelight.service.errors import ServiceError

    try:
        holds = Holds(existing(data)).list()
    except ServiceError as error:
        fail(str(error), error.hint)
    for hold in holds:
        if released or hold.released is None:
            _show(hold)


@app.command()
def release(
    hold_id: Annotated[str, typer.Argument(help="The id that `list` shows.")],
    reason: Reason,
    data: Data = DATA,
) -> None:
    """End a hold: what is past its retention goes with the next sweep."""
    from sidelight.service._holds import Holds
    from sidelight.service.errors import ServiceError

    try:
        caller = _note(data, "hold release", reason, hold=hold_id)
        hold = Holds(data).release(hold_id, reason=reason, by=caller)
    except ServiceError as error:
        fail(str(error), error.hint)
    _show(hold)


def _note(data: Path, command: str, reason: str, **parameters: Any) -> str:
    """Write the command down before it is done; return who gave it."""
    from sidelight.service._access_log import AccessLog, command_entry

    existing(data)
    entry: Mapping[str, Any] = {**command_entry(command, parameters), "reason": reason}
    try:
        AccessLog(data).append(entry)
    except OSError as error:
        fail(f"the access log cannot be written: {error.strerror}; nothing was changed")
    return str(entry["caller"])


def _show(hold: Any) -> None:
    from sidelight.adapters._query_time import format_time

    value = hold.model_dump(mode="json", exclude={"from_us", "to_us"})
    for name, time_us in (("from", hold.from_us), ("to", hold.to_us)):
        value[name] = None if time_us is None else format_time(time_us)
    import orjson

    sys.stdout.buffer.write(orjson.dumps(value) + b"\n")
    sys.stdout.flush()
