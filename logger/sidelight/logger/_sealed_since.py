"""From which position of the archive on the events of a deployment are sealed.

Whoever looks for plain ones need not look behind it. The file says nothing that is secret; without
it everything is looked at.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from sidelight.logger._segments_folder import replace_file

_NAME: Final = "sealed.json"


def note_sealed(data: Path, deployments: Collection[str], position: int) -> None:
    """Note that these are sealed from here on, if they were not; of others that ends here."""
    known = sealed_since(data)
    since = {name: known.get(name, position) for name in deployments}
    if since != dict(known):
        folder = data / "keys"
        replace_file(folder / _NAME, json.dumps(since).encode(), scratch=folder)


def note_unsealed(data: Path) -> None:
    """Note that nothing is sealed from here on."""
    (data / "keys" / _NAME).unlink(missing_ok=True)


def sealed_since(data: Path) -> Mapping[str, int]:
    """Return the position by deployment, as far as it is known."""
    try:
        found = json.loads((data / "keys" / _NAME).read_bytes())
        return {str(name): int(position) for name, position in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
