"""Log lines of the processes: time, level, where, event, facts."""

import logging
import sys

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class _FactsFormatter(logging.Formatter):
    """Appends what was passed as ``extra`` as ``key=value``."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        facts = [
            f"{name}={value!r}" for name, value in vars(record).items() if name not in _STANDARD
        ]
        return " ".join([text, *facts])


def configure_logging(level: int = logging.INFO) -> None:
    """Send the log of this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_FactsFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # One line for each request says nothing that anybody asked.
    for name in ("httpx", "elastic_transport", "opensearch"):
        logging.getLogger(name).setLevel(logging.WARNING)
