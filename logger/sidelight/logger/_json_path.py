"""A small part of JSON path: enough to name a value, nothing that computes.

Reference: RFC 9535; of it names, indices, wildcards and descendants by name.
"""

import re
from collections.abc import Callable
from typing import Any, Final

_STEP: Final = re.compile(
    r"""(?P<deep>\.\.)(?:(?P<deep_name>[\w$-]+)|(?P<deep_any>\*))
      | \.(?:(?P<name>[\w$-]+)|(?P<any>\*))
      | \[(?:(?P<index>-?\d{1,9})|(?P<every>\*)|'(?P<single>[^']*)'|"(?P<double>[^"]*)")\]
    """,
    re.VERBOSE,
)

Change = Callable[[Any], Any]

DROPPED: Final = object()
"""What a change gives for a value that is to go."""

_Step = tuple[bool, str | int | None]  # any depth; name, index, or None for all


class JsonPath:
    """A path, read once.

    ``$`` is the whole; ``.name`` or ``['name']`` a member, ``[0]`` and ``[-1]`` an element, ``.*``
    and ``[*]`` all of them, ``..name`` that member at any depth.

    Parameters
    ----------
    text : str
        The path.

    Raises
    ------
    ValueError
        When it is none of these.

    Examples
    --------
    >>> body = {"a": [{"b": 1, "c": 2}, {"b": 3}]}
    >>> JsonPath("$.a[*].b").change(body, lambda value: None)
    {'a': [{'b': None, 'c': 2}, {'b': None}]}

    """

    def __init__(self, text: str) -> None:
        steps: list[_Step] = []
        position = 1
        while text.startswith("$") and position < len(text):
            match = _STEP.match(text, position)
            if match is None:
                break
            steps.append(_step(match))
            position = match.end()
        if position != len(text) or not steps:
            raise ValueError(
                "path: expected one as $.a.b[*].c or $..c, with members, indices and wildcards, "
                f"got {text!r}"
            )
        self._steps = tuple(steps)

    def change(self, value: Any, change: Change) -> Any:
        """Change every value at the path, in place; return the whole.

        What ``change`` gives takes the place of the value: for ``DROPPED`` a member goes, and an
        element of a list becomes null, so that the others keep their places.
        """
        _walk(value, self._steps, change)
        return value


def _step(match: re.Match[str]) -> _Step:
    parts = match.groupdict()
    if parts["index"] is not None:
        return False, int(parts["index"])
    for name in ("deep_name", "name", "single", "double"):
        if parts[name] is not None:
            return bool(parts["deep"]), parts[name]
    return bool(parts["deep"]), None


def _walk(value: Any, steps: tuple[_Step, ...], change: Change) -> None:
    is_deep, key = steps[0]
    if is_deep:
        # The deeper ones first: a change may take away what is above them.
        for child in list(_children(value)):
            _walk(child, steps, change)
    if isinstance(value, dict):
        keys = list(value) if key is None else [key] if key in value else []
        for name in keys:
            if len(steps) > 1:
                _walk(value[name], steps[1:], change)
            elif (changed := change(value[name])) is DROPPED:
                del value[name]
            else:
                value[name] = changed
    elif isinstance(value, list):
        for place in _places(value, key):
            if len(steps) > 1:
                _walk(value[place], steps[1:], change)
            else:
                changed = change(value[place])
                value[place] = None if changed is DROPPED else changed


def _children(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _places(value: list[Any], key: str | int | None) -> range:
    if key is None:
        return range(len(value))
    if isinstance(key, str) or not -len(value) <= key < len(value):
        return range(0)
    return range(key % len(value), key % len(value) + 1)
