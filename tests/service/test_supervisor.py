"""The process tree, with small programs in place of its processes."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidelight.service import _supervisor
from sidelight.service._run_folder import RunFolder
from sidelight.service._supervisor import CANNOT_START, Supervisor
from sidelight.service.errors import ConfigurationError

# Ends a test that hangs; no slow machine does.
_PATIENCE_S = 100
_ROLES = ("door", "consumer", "detection", "api")
# Says that it is ready, keeps a note of each start, and ends as a process of `serve` does.
_STUB = """
import json, os, signal, sys, threading
role = sys.argv[-1]
settings = json.loads(sys.stdin.buffer.readline())
with open(os.path.join(os.environ["STARTS"], role), "a") as file:
    file.write(json.dumps([os.getpid(), settings["listen"]["port"]]) + "\\n")
{special}
place = {{"host": "127.0.0.1", "port": 4711, "scheme": "http"}}
print(json.dumps(place if role == "door" else {{}}), flush=True)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.stdin.buffer.read()
"""


class Tree:
    """A supervisor over stubs."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, special: str = "", load: Any = None
    ) -> None:
        self.folder = folder / "starts"
        self.folder.mkdir()
        self.announced: list[tuple[str, int, str]] = []
        stub = folder / "stub.py"
        stub.write_text(_STUB.format(special=special))
        monkeypatch.setenv("STARTS", str(self.folder))
        start = asyncio.create_subprocess_exec

        async def started(*command: str, **options: Any) -> Any:
            return await start(sys.executable, str(stub), command[-1], **options)

        monkeypatch.setattr(asyncio, "create_subprocess_exec", started)
        # Whoever stops, if late, is not killed.
        monkeypatch.setattr(_supervisor, "_STOP_GRACE_S", _PATIENCE_S)
        self.settings = {"data": str(folder / "data"), "listen": {"host": "127.0.0.1", "port": 0}}
        self.supervisor = Supervisor(
            load or (lambda: self.settings), lambda *where: self.announced.append(where)
        )

    def starts(self, role: str) -> list[tuple[int, int]]:
        path = self.folder / role
        lines = path.read_text().splitlines() if path.exists() else []
        return [tuple(map(int, line.strip("[]").split(","))) for line in lines]  # type: ignore[misc]  # two

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            while not true():  # noqa: ASYNC110 - other processes set no event of ours
                await asyncio.sleep(0.01)

    def run(self, story: Callable[["Tree"], Any]) -> int:
        async def both() -> int:
            task = asyncio.create_task(self.supervisor.run())
            try:
                await story(self)
            except BaseException:
                task.cancel()
                raise
            async with asyncio.timeout(_PATIENCE_S):
                return await task

        return asyncio.run(both())


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_all_start_and_all_end_with_the_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = Tree(tmp_path, monkeypatch)

    async def story(tree: Tree) -> None:
        await tree.until(lambda: tree.announced and tree.starts("detection"))
        os.kill(os.getpid(), signal.SIGTERM)

    assert tree.run(story) == 0

    assert tree.announced == [("127.0.0.1", 4711, "http")]
    for role in _ROLES:
        ((pid, _),) = tree.starts(role)
        assert _is_gone(pid)


def test_a_second_service_touches_nothing_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_supervisor, "_PATIENCE_S", 0.1)
    first = Tree(tmp_path, monkeypatch)
    second = Supervisor(lambda: first.settings, lambda *_: pytest.fail("it is ready"))
    statuses: list[int] = []

    async def story(tree: Tree) -> None:
        await tree.until(lambda: tree.announced and tree.starts("detection"))
        RunFolder(tmp_path / "data").mark("consumer")
        statuses.append(await second.run())
        first.supervisor._stopping.set()

    assert first.run(story) == 0

    assert statuses == [CANNOT_START]
    assert "another process already holds its role serve" in caplog.text
    assert RunFolder(tmp_path / "data").age_s("consumer", time.time()) is not None
    assert {role: len(first.starts(role)) for role in _ROLES} == dict.fromkeys(_ROLES, 1)


def test_detection_begins_when_the_others_work_and_nobody_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The API is ready when the test says so; detection never is.
    waits = (
        'if role == "api":\n'
        "    import time\n"
        '    while not os.path.exists(os.environ["STARTS"] + "/go"): time.sleep(0.01)\n'
        'if role == "detection": sys.stdin.buffer.read()'
    )
    tree = Tree(tmp_path, monkeypatch, waits)
    begun: list[tuple[bool, bool]] = []

    async def story(tree: Tree) -> None:
        await tree.until(lambda: all(tree.starts(role) for role in ("door", "consumer", "api")))
        begun.append((bool(tree.announced), bool(tree.starts("detection"))))
        (tree.folder / "go").touch()
        await tree.until(lambda: tree.announced and tree.starts("detection"))
        os.kill(os.getpid(), signal.SIGTERM)

    assert tree.run(story) == 0

    assert begun == [(False, False)]


def test_a_service_that_stops_before_it_is_ready_starts_no_detection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = Tree(tmp_path, monkeypatch, 'if role == "api": signal.pause()')

    async def story(tree: Tree) -> None:
        await tree.until(lambda: all(tree.starts(role) for role in ("door", "consumer", "api")))
        os.kill(os.getpid(), signal.SIGTERM)

    assert tree.run(story) == 0

    assert (tree.announced, tree.starts("detection")) == ([], [])


@pytest.mark.parametrize("role", _ROLES)
def test_process_that_dies_is_started_again_at_the_same_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    tree = Tree(tmp_path, monkeypatch)

    async def story(tree: Tree) -> None:
        await tree.until(lambda: tree.announced and tree.starts("detection"))
        os.kill(tree.starts(role)[0][0], signal.SIGKILL)
        await tree.until(lambda: len(tree.starts(role)) == 2)
        os.kill(os.getpid(), signal.SIGTERM)

    assert tree.run(story) == 0

    assert len(tree.announced) == 1
    expected = dict.fromkeys(_ROLES, 1) | {role: 2}
    assert {other: len(tree.starts(other)) for other in _ROLES} == expected
    assert tree.starts(role)[1][1] == 4711


def test_process_that_cannot_start_ends_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = Tree(tmp_path, monkeypatch, f'if role == "consumer": sys.exit({CANNOT_START})')

    async def story(_: Tree) -> None:
        """Nothing has to be done."""

    assert tree.run(story) == CANNOT_START

    assert tree.announced == []
    for role in ("door", "api"):
        assert all(_is_gone(pid) for pid, _ in tree.starts(role))


def test_process_that_does_not_stop_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubborn = (
        'if role == "api":\n'
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    print('{}', flush=True)\n"
        "    while True: signal.pause()"
    )
    tree = Tree(tmp_path, monkeypatch, stubborn)
    monkeypatch.setattr(_supervisor, "_STOP_GRACE_S", 0.2)

    async def story(tree: Tree) -> None:
        await tree.until(lambda: tree.announced)
        os.kill(os.getpid(), signal.SIGTERM)

    assert tree.run(story) == 0

    assert all(_is_gone(pid) for pid, _ in tree.starts("api"))


def test_the_door_stops_first_and_the_api_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Consumer and detection end when both were told to: they are stopped together.
    told = (
        "def end(*_):\n"
        '    with open(os.environ["STARTS"] + "/ends", "a") as file: file.write(role + " ")\n'
        '    open(os.environ["STARTS"] + "/told-" + role, "w").close()\n'
        '    others = {"consumer": "detection", "detection": "consumer"}\n'
        '    other = os.environ["STARTS"] + "/told-" + others.get(role, role)\n'
        "    import time\n"
        "    while not os.path.exists(other): time.sleep(0.01)\n"
        "    os._exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        'place = {"host": "127.0.0.1", "port": 4711, "scheme": "http"}\n'
        'print(json.dumps(place if role == "door" else {}), flush=True)\n'
        "sys.stdin.buffer.read()"
    )
    tree = Tree(tmp_path, monkeypatch, told)

    async def story(tree: Tree) -> None:
        await tree.until(lambda: tree.announced and "detection" in tree.supervisor._ready)
        os.kill(os.getpid(), signal.SIGTERM)

    assert tree.run(story) == 0

    first, *between, last = (tree.folder / "ends").read_text().split()
    assert (first, sorted(between), last) == ("door", ["consumer", "detection"], "api")
    # Nobody had to be killed.
    assert {process.returncode for process in tree.supervisor._processes.values()} == {0}


def test_settings_that_cannot_be_read_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> dict[str, Any]:
        raise ConfigurationError("listen.prot: unknown key")

    tree = Tree(tmp_path, monkeypatch, load=load)

    with pytest.raises(ConfigurationError, match=r"listen\.prot"):
        asyncio.run(tree.supervisor.run())

    assert tree.announced == []
    assert list(tree.folder.iterdir()) == []
    assert not (tmp_path / "data").exists()
    assert all(process.returncode is not None for process in tree.supervisor._processes.values())
