"""Rows of all kinds into a server and back, with whatever client is in reach; and the lake.

Run as ``elastic_round.py URL FOLDER VERSION``: both major versions of the client cannot be imported
by one process.
"""

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import elasticsearch
from tests.adapters.elastic_material import DEPLOYMENTS, Both

from sidelight.adapters import ElasticConnection, connect_elastic

_QUESTIONS = (
    "features.n > 0 and not features.t like 'a%'",
    "features.i >= 9007199254740992 or labels.late is null",
    "outputs.y in (0.25, 0.5) and outlier_score > 1",
    "features.mixed = 'a' or features.mixed = true or features.mixed = 1",
    "version = '1' and status != 200",
)


def _refresh(url: str, prefix: str) -> None:
    request = urllib.request.Request(f"{url}/{prefix}-*/_refresh", method="POST")
    with urllib.request.urlopen(request, timeout=120):
        pass


def _answer(store: Any, **question: Any) -> list[Any]:
    items, _ = store.find(limit=1000, **question)
    shown = [json.dumps(item.to_json(), sort_keys=True) for item in items]
    return [json.loads(text, parse_constant=lambda _: None) for text in shown]


def main() -> None:
    """Print how many questions had the same answers."""
    url, folder, version = sys.argv[1:]
    assert elasticsearch.__versionstr__ == version, elasticsearch.__file__
    connection = ElasticConnection(url=url)
    both = Both(
        Path(folder), lambda: connect_elastic(connection), lambda prefix: _refresh(url, prefix)
    )
    n_same = 0
    for deployment in (None, *DEPLOYMENTS):
        for where in (None, *_QUESTIONS):
            question = {"deployment": deployment, "where": where}
            assert _answer(both.search, **question) == _answer(both.lake, **question), question
            n_same += 1
    both.close()
    print(json.dumps({"same": n_same}))


if __name__ == "__main__":
    main()
