"""Which record makes a step fail: the records are halved until the bad one is alone."""


class Suspicion:
    """How many records a stage may take at once, after it has failed on some.

    Parameters
    ----------
    most : int
        Records taken at once while nothing is wrong.

    Examples
    --------
    >>> suspicion = Suspicion(100)
    >>> suspicion.failed(8)
    >>> suspicion.n_records
    4
    >>> suspicion.passed(4)
    >>> suspicion.n_records, suspicion.is_narrowed
    (2, False)

    """

    def __init__(self, most: int) -> None:
        self._most = most
        # The bad record is among so many of the next ones; 0 when there is none.
        self._among = 0

    @property
    def n_records(self) -> int:
        """Records to take next."""
        return max(1, self._among // 2) if self._among else self._most

    @property
    def is_raised(self) -> bool:
        """Whether a bad record is still among those to come."""
        return self._among > 0

    @property
    def is_narrowed(self) -> bool:
        """Whether the next record is the bad one."""
        return self._among == 1

    def failed(self, n_records: int) -> None:
        """Note that a step failed on so many records; none when it was about time alone."""
        self._among = max(1, n_records)

    def passed(self, n_records: int) -> None:
        """Note that a step went well."""
        self._among = max(0, self._among - max(1, n_records))
