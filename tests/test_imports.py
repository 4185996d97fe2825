"""The import rules of docs/architecture.md hold, and help is quick because imports are lazy."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_import_contracts_are_kept() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, sidelight.service._cli; "
        "print(*sorted({'numpy', 'pyarrow', 'fastapi', 'duckdb', 'pydantic'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""


def test_the_consumer_imports_nothing_that_only_others_need() -> None:
    # Each tenth of a second counts when the service starts again after a kill.
    code = (
        "import sys, sidelight.service._consumer_process; "
        "others = {'httpx', 'rich', 'fastapi', 'duckdb', 'uvicorn', 'scipy', "
        "'sidelight.detectors'}; "
        "print(*sorted(others & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""
