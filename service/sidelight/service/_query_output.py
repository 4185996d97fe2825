"""What the commands ``query`` and ``export`` write, and how they end."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from sidelight.adapters import AdapterError, QueryError
from sidelight.logger.errors import LoggerError
from sidelight.service.errors import BadRequest, ConfigurationError, ServiceError

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
# As the shell counts a process that ended because nobody read what it wrote.
_PIPE_CLOSED: Final = 141

_WRONG: Final = (QueryError, BadRequest, ConfigurationError)
_COLUMNS: Final = ("time", "id", "deployment", "version", "status", "latency_ms", "rows")


def ended(work: Callable[[], None]) -> int:
    """Do the work of a command; say on stderr what went wrong, and return the exit code."""
    try:
        work()
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would try again at its end, and say so.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except (AdapterError, LoggerError, ServiceError) as error:
        hint = getattr(error, "hint", "")
        sys.stderr.write(f"sidelight: {error}\n" + (f"  {hint}\n" if hint else ""))
        return USAGE if isinstance(error, _WRONG) else FAILED
    except OSError as error:
        sys.stderr.write(f"sidelight: {error.strerror or error}\n")
        return FAILED
    return DONE


def write_lines(items: Sequence[Mapping[str, Any]]) -> None:
    """Print one JSON object a line."""
    for item in items:
        sys.stdout.buffer.write(orjson.dumps(item) + b"\n")
    sys.stdout.buffer.flush()


def write_table(items: Sequence[Mapping[str, Any]]) -> None:
    """Print one line a row of an inference, in columns that line up."""
    lines = [line for item in items for line in _lines(item)]
    header = [*_COLUMNS, "features", "outputs", "labels", "outlier_score"]
    cells = [header, *lines]
    widths = [max(len(line[place]) for line in cells) for place in range(len(header))]
    for line in cells:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


def write_stream(chunks: Iterator[bytes], output: Path | None) -> None:
    """Write a stream to stdout or to a file, which has its name only when it is complete."""
    if output is None:
        for chunk in chunks:
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return
    partial = output.with_name(f".{output.name}.part")
    try:
        with partial.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
        partial.replace(output)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _lines(item: Mapping[str, Any]) -> Iterator[list[str]]:
    facts = {**item, "rows": len(item["rows"])}
    for row in item["rows"]:
        score = row["outlier_score"]
        yield [
            *(_text(facts[name]) for name in _COLUMNS),
            *(_pairs(row[section]) for section in ("features", "outputs", "labels")),
            "-" if score is None else f"{score:.4g}",
        ]
        # What is said once for an inference is not repeated for its further rows.
        facts = dict.fromkeys(facts, "")


def _pairs(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={_text(value)}" for name, value in values.items()) or "-"


def _text(value: object) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    # A stored text may hold anything, also what a terminal would obey.
    return "".join(character if character.isprintable() else "?" for character in text)
