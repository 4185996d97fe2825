"""``sidelight query`` and ``sidelight export``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sidelight.service._cli_options import DATA, DataOrConfigured, Url

if TYPE_CHECKING:
    from sidelight.service._query_source import QuerySource

Config = Annotated[
    Path | None,
    typer.Option(help="YAML file of the service, where a search server answers."),
]
TokenFile = Annotated[Path | None, typer.Option(help="File with a token of role read, for --url.")]
Reason = Annotated[
    str | None,
    typer.Option(help="Why you ask; for the access log.", envvar="SIDELIGHT_REASON"),
]
Deployment = Annotated[str | None, typer.Option(help="NS/NAME; all of them when absent.")]
Version = Annotated[str | None, typer.Option(help="Model version.")]
From = Annotated[
    str | None,
    typer.Option("--from", help="Oldest time, included: 2026-04-01T09:30:00Z, or a date (UTC)."),
]
To = Annotated[str | None, typer.Option(help="Newest time, excluded.")]
Where = Annotated[
    str | None,
    typer.Option(help='As: "features.age > 60 and outputs.risk >= 0.5"; see docs/querying.md.'),
]
ENDS = (
    "Ends 0 when done, also when nothing matches; 1 when it cannot be read, or there is no such "
    "inference; 2 when the question is wrong."
)


def query(
    data: DataOrConfigured = None,
    config: Config = None,
    url: Url = None,
    token_file: TokenFile = None,
    deployment: Deployment = None,
    version: Version = None,
    from_: From = None,
    to: To = None,
    where: Where = None,
    order: Annotated[
        Literal["time", "-time"], typer.Option(help="Oldest or newest first.")
    ] = "-time",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Inferences at most.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Of the page before; it is on stderr.")] = None,
    id: Annotated[str | None, typer.Option(help="One inference by its id.")] = None,  # noqa: A002 - the option's name
    *,
    raw: Annotated[
        bool, typer.Option("--raw", help="With --id: with the archived bytes, in base64.")
    ] = False,
    format: Annotated[  # noqa: A002 - the option's name
        Literal["jsonl", "table", "csv"], typer.Option(help="What is printed.")
    ] = "jsonl",
    reason: Reason = None,
) -> None:
    """Find stored inferences, and print them; the cursor of the next page is on stderr."""
    from sidelight.service._query_output import ended, write_lines, write_stream, write_table
    from sidelight.service.errors import BadRequest

    filters: dict[str, Any] = {
        "deployment": deployment,
        "version": version,
        "from": from_,
        "to": to,
        "where": where,
        "order": order,
        "limit": limit,
    }

    def work() -> None:
        if raw and id is None:
            raise BadRequest("--raw: expected --id with it")
        if format == "csv" and (cursor is not None or id is not None):
            raise BadRequest("--format csv: expected neither --cursor nor --id with it")
        source = _source(data, url, token_file, reason, config)
        try:
            if format == "csv":
                write_stream(source.export("csv", filters), None)
                return
            following = None
            if id is not None:
                items = [source.get(id, raw=raw)]
            else:
                items, following = source.find({**filters, "cursor": cursor})
            write_table(items) if format == "table" else write_lines(items)
            if following is not None:
                sys.stderr.write(f"more: --cursor {following}\n")
        finally:
            source.close()

    raise typer.Exit(ended(work))


def export(
    data: DataOrConfigured = None,
    config: Config = None,
    url: Url = None,
    token_file: TokenFile = None,
    deployment: Deployment = None,
    version: Version = None,
    from_: From = None,
    to: To = None,
    where: Where = None,
    order: Annotated[
        Literal["time", "-time"], typer.Option(help="Oldest or newest first.")
    ] = "time",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Inferences at most; all when absent.")
    ] = None,
    format: Annotated[  # noqa: A002 - the option's name
        Literal["jsonl", "csv", "parquet"] | None,
        typer.Option(help="What is written.", show_default="by the name of --output, else jsonl"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="File; it appears when it is complete. Else stdout.")
    ] = None,
    reason: Reason = None,
    backup: Annotated[
        Path | None,
        typer.Option(help="Instead: copy the whole data folder here; it must not exist yet."),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(help="With --backup: folder for the keys of sealed events, kept apart."),
    ] = None,
) -> None:
    """Write all inferences that match as a file, or copy the data folder while the service runs."""
    from sidelight.service._query_output import ended, write_stream
    from sidelight.service.errors import BadRequest

    filters: dict[str, Any] = {
        "deployment": deployment,
        "version": version,
        "from": from_,
        "to": to,
        "where": where,
        "limit": limit,
    }

    def work() -> None:
        source = _source(data, url, token_file, reason, config)
        try:
            chosen = format or _format_of(output)
            write_stream(source.export(chosen, {**filters, "order": order}), output)
        finally:
            source.close()

    def refuse() -> None:
        raise BadRequest("--backup: expected --data alone with it: it copies everything")

    if backup is None:
        raise typer.Exit(ended(work))
    if url or config or output or format or any(value is not None for value in filters.values()):
        raise typer.Exit(ended(refuse))
    from sidelight.service._logging import configure_logging
    from sidelight.service._offline import run_backup

    configure_logging()
    raise typer.Exit(run_backup(data or DATA, backup, keys))


def _source(
    data: Path | None,
    url: str | None,
    token_file: Path | None,
    reason: str | None,
    config: Path | None,
) -> "QuerySource":
    from sidelight.service.errors import BadRequest

    if url is None:
        if token_file is not None:
            raise BadRequest("--token-file: expected --url with it")
        return _folder(data, reason, config)
    if config is not None:
        raise BadRequest("--config: expected no --url with it")
    from sidelight.service._query_remote import RemoteSource

    return RemoteSource(url, token_file=token_file, reason=reason)


def _folder(data: Path | None, reason: str | None, config: Path | None) -> "QuerySource":
    from sidelight.service._query_source import FolderSource

    if config is None:
        return FolderSource(data or DATA, reason=reason)
    from sidelight.service._settings import load_settings

    settings = load_settings(config, {} if data is None else {"data": data})
    return FolderSource(settings.data, reason=reason, settings=settings)


def _format_of(output: Path | None) -> Literal["jsonl", "csv", "parquet"]:
    match output.suffix.lower() if output else "":
        case ".csv":
            return "csv"
        case ".parquet":
            return "parquet"
        case _:
            return "jsonl"
