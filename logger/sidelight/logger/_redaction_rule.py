"""One rule of redaction: what it is about, and what is done to it."""

import math
import re
from dataclasses import dataclass, field
from fnmatch import translate
from functools import lru_cache
from typing import Final, Literal

from sidelight.logger._json_path import JsonPath

Action = Literal["drop", "mask", "hmac", "bucket", "round", "truncate"]
Half = Literal["request", "response"]

_PLACES: Final = ("column", "tensor", "path", "header")
_ACTIONS: Final = ("drop", "mask", "hmac", "bucket", "round", "truncate")
_HALVES: Final = ("request", "response", "both")
_MAX_COLUMNS: Final = 4096


# Compared by identity: hashing the fields of a rule would take longer than what is looked up by it.
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RedactionRule:
    """Take something out of events, or make it coarse, before anything leaves the process.

    Exactly one of ``column``, ``tensor``, ``path`` and ``header`` says what. Patterns are those of
    a shell and match the whole name; upper and lower case differ.

    Parameters
    ----------
    action : str
        ``"drop"``: the member or the tensor goes; a value that has a place in a list or in a matrix
        becomes null (NaN among floats, empty among bytes).
        ``"mask"``: becomes ``text``, or null without one.
        ``"hmac"``: becomes the HMAC-SHA-256 of the value under the key of ``Redaction``: equal
        values stay equal, whatever the wire form they came in. Null stays null.
        ``"bucket"``: a number becomes the lower of the two ``edges`` that it lies between, below
        the first edge the first; anything else becomes null.
        ``"round"``: a number becomes a multiple of ``step``, or is rounded to ``digits``
        (negative ones are left of the point); anything else becomes null.
        ``"truncate"``: of a text its first ``length`` characters stay; anything else becomes null.
    column : str or None
        Pattern over the names that the collector gives to columns of a payload: a V2 tensor of
        one column has its own name, of several ``<tensor>_0, <tensor>_1, ...``; keys of V1
        instances, columns of MLflow, names of Seldon; without any names ``f0, f1, ...`` in requests
        and ``y`` or ``y0, y1, ...`` in responses. A column that has the name of a tensor of several
        columns is all of them.
    tensor : str or None
        Pattern over the names of tensors, and of the named inputs and outputs of V1.
    path : str or None
        JSON path into the body: names, ``[0]``, ``[*]``, ``.*`` and ``..name``.
    header : str or None
        Name of an allow-listed header, of the request or of the response.
    on : {"both", "request", "response"}
        Which half the rule is about.
    deployment : str, default "*"
        Pattern over ``namespace/name``.
    text : str or None
        For ``mask``.
    edges : tuple of float
        For ``bucket``: at least one, ascending, finite.
    step : float or None
    digits : int or None
        For ``round``, one of the two.
    length : int or None
        For ``truncate``, 0 or more.

    Raises
    ------
    ValueError
        When the rule says nothing, too much, or what its action cannot use.

    Examples
    --------
    >>> RedactionRule(action="hmac", column="customer_id").on
    'both'

    """

    action: Action
    column: str | None = None
    tensor: str | None = None
    path: str | None = None
    header: str | None = None
    on: Literal["request", "response", "both"] = "both"
    deployment: str = "*"
    text: str | None = None
    edges: tuple[float, ...] = ()
    step: float | None = None
    digits: int | None = None
    length: int | None = None
    _name: re.Pattern[str] | None = field(init=False, repr=False, compare=False)
    _deployment: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _path: JsonPath | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = [place for place in _PLACES if getattr(self, place) is not None]
        if len(given) != 1 or not getattr(self, given[0]):
            raise ValueError(
                f"rule: expected exactly one of {', '.join(_PLACES)}, got "
                f"{' and '.join(given) or 'none'}; an empty one is none"
            )
        for name, allowed in (("action", _ACTIONS), ("on", _HALVES)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name}: expected one of {', '.join(allowed)}, got {getattr(self, name)!r}"
                )
        if not self.deployment:
            raise ValueError("deployment: expected a pattern, got an empty string; '*' is any")
        self._check_values()
        pattern = self.column or self.tensor
        set_field = object.__setattr__
        set_field(self, "_name", re.compile(translate(pattern)) if pattern else None)
        set_field(self, "_deployment", re.compile(translate(self.deployment)))
        set_field(self, "_path", JsonPath(self.path) if self.path else None)

    def _check_values(self) -> None:
        wanted = {
            "text": self.action == "mask",
            "edges": self.action == "bucket",
            "step": self.action == "round",
            "digits": self.action == "round",
            "length": self.action == "truncate",
        }
        for name, is_wanted in wanted.items():
            if not is_wanted and getattr(self, name) not in (None, ()):
                raise ValueError(f"{name}: expected none for the action {self.action}, got one")
        edges = self.edges
        if self.action == "bucket" and (
            not edges or list(edges) != sorted(set(edges)) or not all(map(math.isfinite, edges))
        ):
            raise ValueError(f"edges: expected ascending finite numbers, got {edges}")
        if self.action == "round" and (self.step is None) == (self.digits is None):
            raise ValueError("round: expected step or digits, got both or none")
        if self.step is not None and not (self.step > 0 and math.isfinite(self.step)):
            raise ValueError(f"step: expected a positive number, got {self.step}")
        if self.action == "truncate" and not (self.length is not None and self.length >= 0):
            raise ValueError(f"length: expected 0 or more characters, got {self.length}")

    @property
    def json_path(self) -> JsonPath | None:
        """The path, read."""
        return self._path

    def is_on(self, half: Half, deployment: str) -> bool:
        """Whether the rule is about this half of an exchange with that deployment.

        An empty name is one that nobody knows: any rule may be about it.
        """
        return self.on in ("both", half) and (
            not deployment or self._deployment.fullmatch(deployment) is not None
        )

    def names(self, name: str) -> bool:
        """Whether the pattern of a column or a tensor matches a name."""
        return self._name is not None and self._name.fullmatch(name) is not None


@lru_cache(maxsize=1024)
def matching_places(rule: RedactionRule, prefix: str, n_columns: int) -> tuple[int, ...]:
    """Return the places whose name, ``prefix`` and the number, a rule about columns matches.

    Of more than 4,096 columns all, when it matches one of the first: no collector names so many.
    """
    if rule.column is None:
        return ()
    n_looked_at = min(n_columns, _MAX_COLUMNS)
    places = tuple(place for place in range(n_looked_at) if rule.names(f"{prefix}{place}"))
    return tuple(range(n_columns)) if places and n_columns > n_looked_at else places
