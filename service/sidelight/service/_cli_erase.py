"""``sidelight erase``: a person's data goes, everywhere."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sidelight.service._cli_options import DataOrConfigured, Url, existing, fail

if TYPE_CHECKING:
    from sidelight.service._erasure_orders import ErasureAnswer

_PLAIN_LEFT = 1
# Looks that find it waiting for the same: one that comes on is not worth a word.
_LONG = 20
ENDS = (
    "Ends 0 when nothing of it can be read any more, 1 when segments of the archive still hold it "
    "as it came (they are named), 2 when nothing was erased."
)


def erase(  # one parameter an option
    deployment: Annotated[str, typer.Option(help="NS/NAME.")],
    reason: Annotated[str, typer.Option(help="Why; it is kept in the archive for ever.")],
    where: Annotated[
        str | None, typer.Option(help="Which inferences, as: features.customer_id = '17'.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option(help="COLUMN=VALUE, whether it holds texts or numbers.")
    ] = None,
    id: Annotated[  # noqa: A002 - the option's name
        list[str] | None, typer.Option(help="Id of an inference; repeatable.")
    ] = None,
    ids_from: Annotated[Path | None, typer.Option(help="File with an id on each line.")] = None,
    request_id: Annotated[
        list[str] | None, typer.Option(help="Id of a request, also of one long gone; repeatable.")
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option(help="Only say how many there are.")] = False,
    data: DataOrConfigured = None,
    url: Url = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with a token of role admin, for --url.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of the service, when none runs.")
    ] = None,
) -> None:
    """Erase inferences so that nobody can read them: in the archive, the lake, everywhere."""
    from sidelight.logger.errors import JournalError
    from sidelight.service._logging import configure_logging
    from sidelight.service.errors import ServiceError

    configure_logging()
    what: dict[str, Any] = {
        "where": where or "",
        "subject": subject or "",
        "ids": (*(id or ()), *_lines(ids_from)),
        "request_ids": tuple(request_id or ()),
        "dry_run": dry_run,
    }
    try:
        if url is not None:
            answer = _remote(url, token_file, deployment=deployment, reason=reason, **what)
        else:
            answer = _local(data, config, deployment=deployment, reason=reason, **what)
    except (ServiceError, JournalError) as error:
        fail(str(error), getattr(error, "hint", ""))
    _show(answer)
    raise typer.Exit(_PLAIN_LEFT if answer.plain else 0)


def _local(
    data: Path | None, config: Path | None, *, deployment: str, reason: str, **what: Any
) -> "ErasureAnswer":
    from sidelight.service._access_log import AccessLog, command_entry
    from sidelight.service._erasing import erase as erased
    from sidelight.service._erasure_orders import ErasureOrder, noted
    from sidelight.service._names import one_name
    from sidelight.service._settings import load_settings

    settings = load_settings(config, {} if data is None else {"data": data})
    existing(settings.data)
    entry = command_entry("erase", {})
    try:
        name = one_name(deployment)
    except ValueError as error:
        fail(f"--deployment: {error}")
    order = ErasureOrder(deployment=name, reason=reason, by=str(entry["caller"]), **what)
    try:
        AccessLog(settings.data).append({**entry, "parameters": noted(order), "reason": reason})
    except OSError as error:
        fail(f"the access log cannot be written: {error.strerror}; nothing was erased")
    return erased(settings, order, _Told())


def _remote(
    url: str, token_file: Path | None, *, deployment: str, reason: str, **what: Any
) -> "ErasureAnswer":
    from sidelight.service._erasing_remote import erase_remotely

    value = {"deployment": deployment, "reason": reason, **what}
    return erase_remotely(url, token_file, value, tell=_Told())


class _Told:
    """Says, each once, why an erasure that is waited for is not done."""

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._waits_for, self._looks = "", 0

    def __call__(self, answer: "ErasureAnswer") -> None:
        if answer.last_error:
            hint = f"\n  {answer.hint}" if answer.hint else ""
            self._say(f"{answer.id} is not done and tried again: {answer.last_error}{hint}")
        self._looks = self._looks + 1 if answer.waits_for == self._waits_for else 0
        self._waits_for = answer.waits_for
        if answer.waits_for and self._looks == _LONG:
            self._say(f"{answer.id} waits for {answer.waits_for}")

    def _say(self, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            sys.stderr.write(f"sidelight: {what}\n")


def _lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        fail(f"--ids-from: {path} cannot be read: {error}")


def _show(answer: "ErasureAnswer") -> None:
    import orjson

    sys.stdout.buffer.write(orjson.dumps(answer.to_json()) + b"\n")
    sys.stdout.flush()
    if not (answer.inferences or answer.keys):
        sys.stderr.write("sidelight: nothing was found; look whether --deployment is right\n")
    if not answer.plain:
        return
    sys.stderr.write(
        "sidelight: not everything is erased: these events came before `erasure` was configured "
        "for the deployment,\n  and stand in the archive as they came; nothing can be taken out of "
        "a chain, only whole segments go:\n"
    )
    for item in answer.plain:
        sys.stderr.write(f"  {item['segment']} stays {item['until']}\n")
