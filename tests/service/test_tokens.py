"""Tokens: what is kept, what is valid, and what other processes see of a change."""

import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sidelight.service._cli import app
from sidelight.service._tokens import ROLES, Role, Tokens
from sidelight.service.errors import ConfigurationError, NotFound

_LATER = 1.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_only_the_digest_of_a_secret_is_kept(tmp_path: Path) -> None:
    token, text = Tokens(tmp_path).create(roles=["read"])
    kept = (tmp_path / "access" / "tokens.json").read_text()
    assert token.id in kept
    assert text.split("_", 2)[2] not in kept
    assert (tmp_path / "access" / "tokens.json").stat().st_mode & 0o077 == 0
    assert (tmp_path / "access").stat().st_mode & 0o077 == 0


def test_a_token_is_found_by_its_text_and_by_no_other(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    token, text = tokens.create(roles=["read"])
    _, other = tokens.create(roles=["read"])
    assert tokens.find(text) == token
    swapped = f"sl_{token.id}_{other.split('_', 2)[2]}"
    for wrong in ("", text[:-1], text + "A", text.upper(), swapped, token.id, f"sl_{token.id}_"):
        assert tokens.find(wrong) is None


@given(st.text())
def test_no_other_text_is_a_token_nor_an_error(text: str) -> None:
    assert Tokens(Path("/nonexistent")).find(text) is None


def test_another_process_sees_a_revocation_and_a_rotation(tmp_path: Path) -> None:
    clock = Clock()
    writer, reader = Tokens(tmp_path), Tokens(tmp_path, clock=clock)
    token, text = writer.create(roles=["explain"])
    assert reader.find(text) is not None
    rotated, new = writer.rotate(token.id, grace=timedelta(hours=1))
    clock.now += _LATER
    assert rotated.id == token.id
    assert reader.find(text) is not None
    assert reader.find(new) is not None
    writer.rotate(token.id, grace=timedelta(0))
    clock.now += _LATER
    # The secret before the last one but one is no longer known at all.
    assert reader.find(text) is None
    assert reader.find(new) is None
    writer.revoke(token.id)
    clock.now += _LATER
    assert reader.find(new) is None
    with pytest.raises(NotFound, match=token.id):
        writer.revoke(token.id)
    with pytest.raises(NotFound):
        writer.rotate(token.id, grace=timedelta(0))


def test_a_token_ends_when_it_expires(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    token, text = tokens.create(roles=["read"], lifetime=timedelta(days=1))
    secret = text.split("_", 2)[2]
    assert token.expires is not None
    assert token.is_valid(secret, token.expires - timedelta(seconds=1))
    assert not token.is_valid(secret, token.expires)
    _, dead = tokens.create(roles=["read"], lifetime=timedelta(0))
    assert tokens.find(dead) is None


def test_a_token_that_was_found_before_is_refused_when_it_has_expired(tmp_path: Path) -> None:
    clock = Clock()
    tokens = Tokens(tmp_path, clock=clock)
    token, text = tokens.create(roles=["read"], lifetime=timedelta(days=1))
    assert tokens.find(text) == token
    path = tmp_path / "access" / "tokens.json"
    before = path.stat().st_mtime_ns
    path.write_text(path.read_text().replace(str(token.expires)[:10], "2001-01-01"))
    # A quick machine writes both within one tick of the file system's clock.
    os.utime(path, ns=(before + 10**9, before + 10**9))
    clock.now += _LATER
    assert tokens.find(text) is None


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("ingest", {"ingest"}),
        ("read", {"read"}),
        ("explain", {"read", "explain"}),
        ("admin", set(ROLES)),
    ],
)
def test_roles_imply_what_is_documented(tmp_path: Path, role: Role, allowed: set[str]) -> None:
    token, _ = Tokens(tmp_path).create(roles=[role])
    assert token.allowed == allowed


def test_changes_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    made: list[str] = []

    def create() -> None:
        made.extend(Tokens(tmp_path).create(roles=["read"])[0].id for _ in range(5))

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {token.id for token in Tokens(tmp_path).list()} == set(made)
    assert len(made) == 20


@pytest.mark.parametrize("text", ["", "no JSON", '{"format": 2, "tokens": []}', '{"tokens": [{}]}'])
def test_a_file_of_something_else_lets_nobody_pass(tmp_path: Path, text: str) -> None:
    clock = Clock()
    tokens = Tokens(tmp_path, clock=clock)
    _, token = tokens.create(roles=["admin"])
    assert tokens.find(token) is not None
    (tmp_path / "access" / "tokens.json").write_text(text)
    clock.now += _LATER
    assert tokens.find(token) is None
    with pytest.raises(ConfigurationError, match=r"tokens\.json"):
        tokens.list()


def test_the_command_makes_lists_rotates_and_revokes(tmp_path: Path) -> None:
    run, data = CliRunner(), ["--data", str(tmp_path)]
    made = run.invoke(
        app, ["token", "create", "--role", "ingest", "--role", "read", "--namespace", "a b", *data]
    )
    text = made.stdout.strip()
    token = Tokens(tmp_path).find(text)
    assert token is not None
    assert token.roles == ("ingest", "read")
    assert token.namespaces == ("a%20b",)
    assert token.expires is not None
    assert timedelta(364) < token.expires - datetime.now(UTC) <= timedelta(365)
    listed = run.invoke(app, ["token", "list", *data]).stdout
    assert json.loads(listed)["id"] == token.id
    assert "digest" not in listed
    new = run.invoke(app, ["token", "rotate", token.id, "--grace", "0s", *data]).stdout.strip()
    assert Tokens(tmp_path).find(text) is None
    assert Tokens(tmp_path).find(new) is not None
    assert run.invoke(app, ["token", "revoke", token.id, *data]).exit_code == 0
    assert Tokens(tmp_path).find(new) is None
    (log,) = (tmp_path / "access").glob("log-*.jsonl")
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [entry["command"] for entry in entries] == [
        "token create",
        "token rotate",
        "token revoke",
    ]
    assert not [secret for secret in (text, new) if secret.split("_", 2)[2] in log.read_text()]
    for wrong in (
        ["revoke", token.id],
        ["rotate", token.id],
        ["create", "--role", "root"],
        ["create", "--role", "read", "--expires", "soon"],
        ["create", "--role", "read", "--expires", "0d"],
        ["create", "--role", "read", "--expires", "40000d"],
    ):
        result = run.invoke(app, ["token", *wrong, *data])
        assert result.exit_code == 2
        assert result.stderr.startswith("sidelight: ")


def test_a_user_without_a_name_is_known_by_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 1000")

    monkeypatch.setattr("getpass.getuser", nameless)
    done = CliRunner().invoke(app, ["token", "create", "--role", "read", "--data", str(tmp_path)])
    assert done.exit_code == 0
    (log,) = (tmp_path / "access").glob("log-*.jsonl")
    assert json.loads(log.read_text())["caller"] == f"user {os.getuid()}"
