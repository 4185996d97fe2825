"""Commands and their options. Each imports what it needs when it runs, so that help is quick."""

import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from sidelight.service import _cli_erase, _cli_hold, _cli_query, _cli_token
from sidelight.service._cli_options import DATA, Config, Data, DataOrConfigured, fail

app = typer.Typer(
    name="sidelight",
    help="Captures what deployed models are asked and answer; drift, outliers, explanations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(_cli_hold.app, name="hold")
app.add_typer(_cli_token.app, name="token")
app.command(epilog=_cli_query.ENDS)(_cli_query.query)
app.command(epilog=_cli_query.ENDS)(_cli_query.export)
app.command(epilog=_cli_erase.ENDS)(_cli_erase.erase)

Host = Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")]
Port = Annotated[int | None, typer.Option(help="TCP port.", show_default="8090")]
TokenFile = Annotated[Path | None, typer.Option(help="File with an ingest token.")]


@app.command()
def serve(
    config: Config = None, host: Host = None, port: Port = None, data: DataOrConfigured = None
) -> None:
    """Collect, store, watch and explain, in one process tree."""
    from sidelight.service._logging import configure_logging
    from sidelight.service._serve import run_serve
    from sidelight.service.errors import ServiceError

    configure_logging()
    try:
        status = run_serve(config, _options(host=host, port=port, data=data))
    except ServiceError as error:
        fail(str(error), error.hint)
    raise typer.Exit(status)


@app.command()
def proxy(
    config: Config = None,
    upstream: Annotated[
        str | None, typer.Option(help="The model server, http(s)://HOST:PORT or unix:PATH.")
    ] = None,
    sink: Annotated[
        str | None, typer.Option(help="Where events go, as http://collector:8090/.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="HOST:PORT of the model's door.", show_default="0.0.0.0:9081")
    ] = None,
    deployment: Annotated[
        str | None,
        typer.Option(help="NS/NAME of the events.", show_default="the model's name in the path"),
    ] = None,
    sink_mode: Annotated[
        str | None,
        typer.Option(help="batch, or binary for a Knative broker.", show_default="batch"),
    ] = None,
    admin: Annotated[
        str | None,
        typer.Option(help="HOST:PORT of health and metrics.", show_default="127.0.0.1:9082"),
    ] = None,
    admin_token: Annotated[
        str | None,
        typer.Option(help="File with the token that metrics ask for on other than loopback."),
    ] = None,
    spool: Annotated[
        str | None,
        typer.Option(
            help="Folder for events that cannot be sent now.", show_default="./sidelight-spool"
        ),
    ] = None,
    request_ids: Annotated[
        str | None,
        typer.Option(
            help="trust the callers' ids, or generate a new one for each call.",
            show_default="trust",
        ),
    ] = None,
    grpc_upstream: Annotated[
        str | None, typer.Option(help="The model server's gRPC, HOST:PORT.")
    ] = None,
    grpc_listen: Annotated[
        str | None,
        typer.Option(help="HOST:PORT of the model's door for gRPC.", show_default="0.0.0.0:9083"),
    ] = None,
) -> None:
    """Stand in front of a model server and send what passes as CloudEvents."""
    # It asks for the file to be read, which is still to come: no reason to end.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    from sidelight.service._logging import configure_logging
    from sidelight.service._proxy_configuration import ProxyConfiguration
    from sidelight.service._proxy_process import run_proxy
    from sidelight.service.errors import ServiceError

    configure_logging()
    options = {
        "upstream": upstream,
        "sink": sink,
        "listen": listen,
        "deployment": deployment,
        "sink_mode": sink_mode,
        "admin": admin,
        "admin_token_from": admin_token,
        "spool": spool,
        "request_ids": request_ids,
        "grpc.upstream": grpc_upstream,
        "grpc.listen": grpc_listen,
    }
    try:
        run_proxy(ProxyConfiguration(file=config, options=options))
    except ServiceError as error:
        fail(str(error), error.hint)


@app.command()
def verify(
    *,
    data: Data = DATA,
    public_key: Annotated[
        str | None, typer.Option(help="Who must have signed it: 64 hexadecimal digits, or a file.")
    ] = None,
    sealed_only: Annotated[
        bool,
        typer.Option(
            "--sealed-only",
            help="Of a copy from a bucket: without access log and the segment that is written to.",
        ),
    ] = False,
) -> None:
    """Check that the archive of raw events is byte for byte what was written."""
    from sidelight.service._offline import run_verify

    raise typer.Exit(run_verify(data, public_key, sealed_only=sealed_only))


@app.command()
def replay(
    data: Data = DATA,
    to: Annotated[str | None, typer.Option(help="Collector that takes the events.")] = None,
    into: Annotated[Path | None, typer.Option(help="Fresh data folder, collected here.")] = None,
    first: Annotated[int, typer.Option(min=0, help="Position of the first record.")] = 0,
    token_file: TokenFile = None,
    config: Config = None,
) -> None:
    """Send the raw archive through collection again; prints the counts as JSON."""
    from sidelight.logger.errors import JournalError
    from sidelight.service._collector_client import CollectorClient
    from sidelight.service._logging import configure_logging
    from sidelight.service._replay import note_replay, replay_into, replay_to
    from sidelight.service._settings import load_settings
    from sidelight.service.errors import ServiceError

    configure_logging()
    if (to is None) == (into is None):
        fail("replay: expected either --to or --into")
    try:
        note_replay(data, to=to, into=into, first=first)
        if into is not None:
            report = replay_into(data, load_settings(config, {"data": into}), first=first)
        else:
            with CollectorClient(to or "", token_file=token_file) as client:
                report = replay_to(data, client, first=first)
    except (ServiceError, JournalError) as error:
        fail(str(error), getattr(error, "hint", ""))
    report.show()
    raise typer.Exit(1 if report.refused or report.damaged else 0)


@app.command("import")
def import_(
    files: Annotated[list[Path], typer.Argument(help="Files of other loggers, or tables.")],
    to: Annotated[str, typer.Option(help="Collector.")] = "http://127.0.0.1:8090",
    format: Annotated[  # noqa: A002 - the option's name
        str | None,
        typer.Option(
            help="kserve, sagemaker, seldon, events, jsonl, csv, parquet; found out else."
        ),
    ] = None,
    deployment: Annotated[str | None, typer.Option(help="NS/NAME of a table's rows.")] = None,
    feature: Annotated[
        list[str] | None, typer.Option(help="Column; repeatable. All others when none is named.")
    ] = None,
    output: Annotated[list[str] | None, typer.Option(help="Column; repeatable.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Column; repeatable.")] = None,
    id_column: Annotated[str | None, typer.Option("--id", help="Column of request ids.")] = None,
    time_column: Annotated[str | None, typer.Option("--time", help="Column of times.")] = None,
    version_column: Annotated[
        str | None, typer.Option("--version", help="Column of model versions.")
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="One character between cells of CSV; found out else.")
    ] = None,
    encoding: Annotated[str, typer.Option(help="Of CSV, such as cp1252 or utf-16.")] = "utf-8",
    *,
    decimal_comma: Annotated[
        bool, typer.Option("--decimal-comma", help="Numbers of CSV are written as 1,5.")
    ] = False,
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad",
            help="Leave out lines that cannot be read, and tables; count and name them.",
        ),
    ] = False,
    token_file: TokenFile = None,
) -> None:
    """Send what other loggers and tables hold to a collector; prints the counts as JSON."""
    from sidelight.service._collector_client import CollectorClient
    from sidelight.service._import import import_files
    from sidelight.service._import_csv import CsvForm
    from sidelight.service._import_format import FORMATS
    from sidelight.service._import_tables import Mapped
    from sidelight.service._logging import configure_logging
    from sidelight.service.errors import ServiceError

    configure_logging()
    known = next((name for name in FORMATS if name == format), None)
    if format is not None and known is None:
        fail(f"--format: expected one of {', '.join(FORMATS)}, got {format!r}")
    try:
        form = CsvForm(delimiter=delimiter, decimal_comma=decimal_comma, encoding=encoding)
        mapped = None
        if deployment is not None:
            mapped = Mapped(
                deployment=deployment,
                features=tuple(feature or ()),
                outputs=tuple(output or ()),
                labels=tuple(label or ()),
                request_id=id_column,
                time=time_column,
                version=version_column,
            )
        with CollectorClient(to, token_file=token_file) as client:
            report = import_files(
                files, client, mapped=mapped, format=known, skip_bad=skip_bad, csv=form
            )
    except ServiceError as error:
        fail(str(error), error.hint)
    report.show()
    raise typer.Exit(1 if report.refused or report.skipped else 0)


@app.command()
def demo(
    *,
    quick: Annotated[bool, typer.Option(help="Fewer flights; fits in half a minute.")] = False,
    once: Annotated[bool, typer.Option(help="End when done; JSON on the last line.")] = False,
    port: Annotated[int, typer.Option(help="TCP port of the service; 0 for a free one.")] = 8090,
    data: Annotated[Path, typer.Option(help="Data folder, made anew.")] = Path("./sidelight-demo"),
) -> None:
    """Show the main job on the flights of 2013: capture, drift, outliers, an explanation."""
    try:
        from sidelight.service._demo_run import run_demo
    except ModuleNotFoundError as error:
        if error.name not in {"pandas", "sklearn"}:
            raise
        fail("the demo needs more packages", "pip install 'sidelight[demo]'")
    raise typer.Exit(run_demo(quick=quick, once=once, port=port, data=data))


def _options(*, host: str | None, port: int | None, data: Path | None) -> dict[str, Any]:
    listen = {"host": host, "port": port}
    listen = {name: value for name, value in listen.items() if value is not None}
    options: dict[str, Any] = {"listen": listen} if listen else {}
    return options if data is None else {**options, "data": data}
