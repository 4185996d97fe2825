"""``sidelight token``: make, list, revoke and rotate the tokens of a data folder."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from sidelight.service._cli_options import DATA, Data, existing, fail

app = typer.Typer(help="Tokens of callers and senders.", no_args_is_help=True)

# Tokens may be made before the first start.
_ACCESS = "access"
# A hundred years; far ones have no date.
_LONGEST = timedelta(days=36500)

TokenId = Annotated[str, typer.Argument(help="The id that `list` shows.")]


@app.command()
def create(
    role: Annotated[list[str], typer.Option(help="ingest, read, explain or admin; repeatable.")],
    namespace: Annotated[
        list[str] | None, typer.Option(help="Limit it to a namespace; repeatable.")
    ] = None,
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    expires: Annotated[str, typer.Option(help="After that: 90d, 12h; or never.")] = "365d",
    data: Data = DATA,
) -> None:
    """Make a token and print it: it cannot be shown again."""
    from sidelight.service._ingest_gate import stored_namespace
    from sidelight.service._tokens import ROLES, Tokens

    roles = [known for known in ROLES if known in role]
    if wrong := sorted(set(role) - set(ROLES)):
        fail(f"--role: expected one of {', '.join(ROLES)}, got {wrong[0]}")
    lifetime = None if expires == "never" else _duration("expires", expires)
    if lifetime is not None and not timedelta(0) < lifetime <= _LONGEST:
        fail(f"--expires: expected a duration up to 36500d, or never, got {expires!r}")
    namespaces = None if not namespace else [stored_namespace(item) for item in namespace]
    _note(data, "token create", role=roles, namespace=namespaces, name=name, expires=expires)
    token, text = Tokens(data).create(
        roles=roles, name=name, namespaces=namespaces, lifetime=lifetime
    )
    sys.stderr.write(f"token {token.id}: keep what follows, only its digest is stored\n")
    sys.stdout.write(f"{text}\n")


@app.command("list")
def list_tokens(data: Data = DATA) -> None:
    """Print every token as one line of JSON, without its secret."""
    import orjson

    from sidelight.service._tokens import Tokens
    from sidelight.service.errors import ServiceError

    try:
        tokens = Tokens(existing(data, sign=_ACCESS)).list()
    except ServiceError as error:
        fail(str(error), error.hint)
    for token in tokens:
        shown = token.model_dump(mode="json", exclude={"digest", "former_digest"})
        sys.stdout.buffer.write(orjson.dumps(shown) + b"\n")


@app.command()
def revoke(token_id: TokenId, data: Data = DATA) -> None:
    """Refuse a token from now on; running services follow within a second."""
    from sidelight.service._tokens import Tokens
    from sidelight.service.errors import ServiceError

    _note(existing(data, sign=_ACCESS), "token revoke", id=token_id)
    try:
        Tokens(data).revoke(token_id)
    except ServiceError as error:
        fail(str(error), error.hint)


@app.command()
def rotate(
    token_id: TokenId,
    grace: Annotated[str, typer.Option(help="How long the old secret is taken, too.")] = "24h",
    data: Data = DATA,
) -> None:
    """Give a token a new secret and print it; id, roles, namespaces and end stay."""
    from sidelight.service._tokens import Tokens
    from sidelight.service.errors import ServiceError

    lasting = _duration("grace", grace)
    _note(existing(data, sign=_ACCESS), "token rotate", id=token_id, grace=grace)
    try:
        _, text = Tokens(data).rotate(token_id, grace=lasting)
    except ServiceError as error:
        fail(str(error), error.hint)
    sys.stdout.write(f"{text}\n")


def _note(data: Path, command: str, **parameters: object) -> None:
    """Write down what is about to be done: what cannot be written down is not done."""
    from sidelight.service._access_log import AccessLog, command_entry

    try:
        AccessLog(data).append(command_entry(command, parameters))
    except OSError as error:
        fail(f"the access log cannot be written: {error.strerror}; nothing was changed")


def _duration(option: str, text: str) -> timedelta:
    from sidelight.service._quantities import seconds

    try:
        return timedelta(seconds=seconds(text))
    except (ValueError, OverflowError):
        fail(f"--{option}: expected a duration such as 90d, 12h or 30m, got {text!r}")
