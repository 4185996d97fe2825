"""What the checkpoint says of the access log, which stands beside the archive."""

import logging
import threading

from sidelight.logger._checkpoint import LogHead, Watch

log = logging.getLogger(__name__)


class Beside:
    """How far the access log goes, and what was found wrong with it; any thread may look.

    Parameters
    ----------
    watch : callable or None
        Looks at the log; None keeps what was signed.
    head : LogHead or None
        What was signed last.
    findings : tuple of str
        What checkpoints say already.

    Attributes
    ----------
    seen : (LogHead or None, tuple of str)
        How far the log went when somebody looked last, and all that was ever wrong; replaced as
        one, never changed.

    """

    def __init__(
        self, watch: Watch | None, *, head: LogHead | None, findings: tuple[str, ...]
    ) -> None:
        self._watch = watch
        self._lock = threading.Lock()
        self.seen = head, findings

    def look(self) -> None:
        """Look at the log, which may wait for who writes to it."""
        if self._watch is None:
            return
        former, _ = self.seen
        head, finding = self._watch(former)
        with self._lock:
            _, findings = self.seen
            if finding is not None and finding not in findings:
                log.error("the access log is not what was signed", extra={"finding": finding})
                findings = (*findings, finding)
            self.seen = head, findings
