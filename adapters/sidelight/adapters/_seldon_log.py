"""Writing, and deleting, documents in the layout of Seldon's request logger."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sidelight.adapters._elastic_bulk import Bulk, Operation, Outcome
from sidelight.adapters._elastic_client import Flavour
from sidelight.adapters._elastic_documents import NOTHING, Joined
from sidelight.adapters._elastic_templates import IndexOptions
from sidelight.adapters._seldon_layout import (
    ID_FIELD,
    LOGGED,
    REPLY_FIELD,
    SeldonOptions,
    inference_documents,
    reply_documents,
    reply_key,
    seldon_template,
)
from sidelight.payloads import Batch

log = logging.getLogger(__name__)

_OK: Final = 200
_PAGE: Final = 1000
_IDS: Final = 500
_ANY: Final = {"ignore_unavailable": "true", "allow_no_indices": "true"}


class SeldonLog:
    """The second family of documents; any thread, one call at a time.

    Parameters
    ----------
    bulk : Bulk
    options : SeldonOptions or None
        None writes nothing; what was written once is erased all the same.

    """

    def __init__(self, bulk: Bulk, options: SeldonOptions | None) -> None:
        self._bulk = bulk
        self._options = options

    def prepare(self, options: IndexOptions, flavour: Flavour) -> None:
        """Tell the server of the indices."""
        if self._options is None:
            return
        body = seldon_template(options, flavour)
        answer = self._bulk.ask("PUT", f"/_index_template/{options.prefix}-seldon", body)
        if answer.status != _OK:
            # Whoever has such indices has a template for them, or does without.
            log.warning("no template for Seldon's indices", extra={"status": answer.status})

    def write(self, batches: Sequence[Batch], joined: Mapping[str, Joined]) -> None:
        """Merge rows into their documents."""
        if (options := self._options) is None:
            return
        self._bulk.send(
            operation
            for batch in batches
            for operation in inference_documents(
                batch, joined.get(batch.deployment, NOTHING), options
            )
        )

    def reply(self, replies: Iterable[Mapping[str, Any]]) -> Counter[Outcome]:
        """Store what other detectors answered."""
        if (options := self._options) is None:
            return Counter()
        return self._bulk.send(
            operation for reply in replies for operation in reply_documents(reply, options)
        )

    def erase(self, ids: Sequence[str]) -> int:
        """Delete the documents of inferences; return how many."""
        return self._erase(ID_FIELD, ids)

    def erase_replies(self, deployment: str, request_ids: Sequence[str]) -> int:
        """Delete what detectors answered to requests; return how many documents."""
        return self._erase(REPLY_FIELD, [reply_key(deployment, name) for name in request_ids])

    def _erase(self, field: str, terms: Sequence[str]) -> int:
        number = 0
        for begin in range(0, len(terms), _IDS):
            wanted = {"terms": {field: list(terms[begin : begin + _IDS])}}
            while hits := self._found(wanted):
                operations = (
                    Operation("delete", {"_index": hit["_index"], "_id": hit["_id"]})
                    for hit in hits
                )
                number += self._bulk.send(operations)["stored"]
        return number

    def _found(self, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
        self._bulk.ask("POST", f"/{LOGGED}/_refresh", None, **_ANY)
        body = {"size": _PAGE, "_source": ["RequestId"], "query": {"bool": {"filter": [wanted]}}}
        path = f"/{LOGGED}/_search"
        answer = self._bulk.ask("POST", path, body, **_ANY)
        if answer.status != _OK:
            raise RuntimeError(f"{path}: expected documents, got {answer.status}")
        hits: list[dict[str, Any]] = answer.body["hits"]["hits"]
        return hits
