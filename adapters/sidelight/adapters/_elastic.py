"""Inferences, labels and alarms in Elasticsearch or OpenSearch."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import orjson
import pyarrow.compute as pc

from sidelight.adapters._elastic_bulk import Bulk, Operation, Outcome, StoppedError
from sidelight.adapters._elastic_client import ElasticClient, Flavour
from sidelight.adapters._elastic_columns import ColumnNotes, columns_index
from sidelight.adapters._elastic_days import Days
from sidelight.adapters._elastic_documents import (
    NOTHING,
    AlarmSpan,
    Joined,
    label_fields,
    row_operations,
    written,
)
from sidelight.adapters._elastic_names import index_stem
from sidelight.adapters._elastic_templates import (
    IndexOptions,
    components,
    index_templates,
    later_fields,
    policy,
)
from sidelight.adapters._seldon_layout import SeldonOptions
from sidelight.adapters._seldon_log import SeldonLog
from sidelight.payloads import Batch

__all__ = ["ElasticStore", "StoppedError"]

log = logging.getLogger(__name__)

_OK: Final = 200
_PAGE: Final = 1000
_IDS: Final = 500
# An alarm marks what was indexed before it was raised; on a busy deployment, no more than this.
_MOST_MARKED: Final = 20_000
_ANY: Final = {"ignore_unavailable": "true", "allow_no_indices": "true"}


class ElasticStore:
    """The one writer of the documents of a data folder; any thread, one call at a time.

    Each row of an inference is one document, named by both, in the index of its deployment and
    day. Whatever is written again changes nothing: a document's version is its revision, and the
    server keeps the newer one. Every method returns when all of its work is acknowledged, and
    waits as long as the server takes.

    Parameters
    ----------
    client : ElasticClient
        Closed with the store.
    flavour : "elasticsearch" or "opensearch"
    options : IndexOptions
    on_trouble : callable, optional
        Told a reason each time that something must be sent again; from any thread.
    connections : int
        Bulk requests at one time.
    seldon : SeldonOptions, optional
        Write the documents of Seldon's request logger beside ours; none when absent.

    """

    def __init__(
        self,
        client: ElasticClient,
        *,
        flavour: Flavour = "elasticsearch",
        options: IndexOptions | None = None,
        on_trouble: Callable[[str], None] = lambda _: None,
        connections: int = 2,
        seldon: SeldonOptions | None = None,
    ) -> None:
        self._client = client
        self._flavour: Flavour = flavour
        self._options = options or IndexOptions()
        self._stopping = threading.Event()
        self._bulk = Bulk(client, self._stopping, on_trouble, connections=connections)
        self._log = SeldonLog(self._bulk, seldon)
        self._notes = ColumnNotes(self._options.prefix)
        self._days = Days(self._indices, most=self._options.max_days)
        self._is_prepared = False

    def stop(self) -> None:
        """End what waits, at once, with ``StoppedError``; what was not acknowledged is undone."""
        self._stopping.set()

    def close(self) -> None:
        """Stop, and close the connections."""
        self.stop()
        self._bulk.close()
        self._client.close()

    def prepare(self) -> None:
        """Tell the server of our indices, once; done before the first document anyway.

        Raises
        ------
        StoppedError
            Of every method: the store was stopped before the server did what was asked.

        """
        if self._is_prepared:
            return
        lifecycle = self._flavour == "elasticsearch" and self._put_policy()
        options = self._options
        parts = components(options, self._flavour, lifecycle=lifecycle)
        for name, body in parts.items():
            self._put(f"/_component_template/{name}", body)
        for name, body in index_templates(options).items():
            self._put(f"/_index_template/{name}", body)
        self._log.prepare(options, self._flavour)
        # Those of today exist already when a newer version starts.
        pattern = f"/{options.prefix}-inferences-*/_mapping"
        self._bulk.ask("PUT", pattern, later_fields(), **_ANY)
        self._is_prepared = True

    def write(
        self, batches: Sequence[Batch], joined: Mapping[str, Joined] | None = None
    ) -> Counter[Outcome]:
        """Store rows; return how many documents had which outcome.

        Parameters
        ----------
        batches : sequence of Batch
            In the order of the journal; of several revisions of an inference the highest counts.
        joined : mapping of deployment to Joined, optional
            Labels, scores and alarms of these rows.

        """
        self.prepare()
        joined = joined or {}
        options = self._options

        def operations(batch: Batch) -> Iterator[Operation]:
            return row_operations(
                batch,
                joined.get(batch.deployment, NOTHING),
                prefix=options.prefix,
                max_fields=options.max_fields,
                keeps_long=options.keeps_long,
                index_of=self._days.index_of,
            )

        self._note_columns(batches, joined)
        outcomes = self._bulk.send(chain.from_iterable(map(operations, batches)))
        for deployment, revisions in _revised(batches).items():
            self._remove_older(deployment, revisions)
        self._log.write(batches, joined)
        return outcomes

    def reply(self, replies: Iterable[Mapping[str, Any]]) -> Counter[Outcome]:
        """Store what other detectors answered, where documents are in Seldon's layout."""
        self.prepare()
        return self._log.reply(replies)

    def label(
        self, deployment: str, labels: Mapping[tuple[str, int], Mapping[str, Any]]
    ) -> Counter[Outcome]:
        """Join labels to the rows that are there; those of later rows come with ``write``.

        Parameters
        ----------
        labels : mapping of (request id, row) to labels
            All labels of these rows; names are added or replaced, none is removed.

        """
        self.prepare()
        self._note(
            chain.from_iterable(self._notes.labels(deployment, each) for each in labels.values())
        )

        def updates() -> Iterator[Operation]:
            query = "request_id", list({request_id for request_id, _ in labels})
            for hit in self._hits(deployment, [query], ["request_id", "row"]):
                found = labels.get((hit["_source"]["request_id"], hit["_source"]["row"]))
                if found:
                    yield _update(hit, label_fields(found))

        return self._bulk.send(updates())

    def alarm(self, value: Mapping[str, Any], span: AlarmSpan) -> Counter[Outcome]:
        """Store an alarm as the API shows it, and mark the rows that are there already."""
        self.prepare()
        deployment = str(value["deployment"])
        namespace, _, name = deployment.partition("/")
        document = {**value, "namespace": namespace, "name": name}
        head = {"_index": f"{self._options.prefix}-alarms", "_id": value["id"]}
        self._bulk.send(iter([Operation("index", head, orjson.dumps(document))]))

        def marks() -> Iterator[Operation]:
            for number, hit in enumerate(self._unmarked(deployment, span)):
                if number == _MOST_MARKED:
                    log.warning("alarm marks no more rows", extra={"alarm": span.id})
                    return
                others = hit["_source"].get("alarms") or []
                yield _update(hit, {"alarms": sorted({*others, span.id})})

        return self._bulk.send(marks())

    def forget_alarms(self, ids: Collection[str]) -> None:
        """Delete alarms; the rows that they marked keep their ids as long as they are there."""
        self.prepare()
        index = f"{self._options.prefix}-alarms"
        self._bulk.send(Operation("delete", {"_index": index, "_id": name}) for name in ids)

    def _note_columns(self, batches: Sequence[Batch], joined: Mapping[str, Joined]) -> None:
        """Store which columns there are before the first document that has them."""
        schemas = {
            (batch.deployment, batch.records.schema): None for batch in batches if len(batch)
        }
        self._note(
            chain(
                chain.from_iterable(self._notes.layout(*schema) for schema in schemas),
                chain.from_iterable(
                    self._notes.labels(name, labels)
                    for name, each in joined.items()
                    for labels in each.labels.values()
                ),
            )
        )

    def _note(self, notes: Iterable[Operation]) -> None:
        new = list(notes)
        if not new:
            return
        try:
            self._bulk.send(iter(new))
            self._bulk.ask("POST", f"/{columns_index(self._options.prefix)}/_refresh")
        except BaseException:
            self._notes.forget()
            raise
        self._notes.done()

    def erase(
        self, deployment: str, inference_ids: Collection[str], request_ids: Collection[str] = ()
    ) -> int:
        """Delete all rows of some inferences, of all revisions and days; return how many.

        Done again it changes nothing. Nothing may write rows of them meanwhile or later. Replies
        of other detectors, in Seldon's layout, are found by the ids of requests.
        """
        self.prepare()

        def deletions() -> Iterator[Operation]:
            query = "inference_id", sorted(inference_ids)
            for hit in self._hits(deployment, [query], ["inference_id"]):
                yield Operation("delete", {"_index": hit["_index"], "_id": hit["_id"]})

        outcomes = self._bulk.send(deletions())
        self._refresh(deployment)
        logged = self._log.erase(sorted(inference_ids))
        replies = self._log.erase_replies(deployment, sorted(request_ids))
        return outcomes["stored"] + logged + replies

    def _put_policy(self) -> bool:
        name = f"{self._options.prefix}-inferences"
        answer = self._bulk.ask("PUT", f"/_ilm/policy/{name}", policy(self._options))
        if answer.status == _OK:
            return True
        # A build without that module says 400 or 405; it has no lifecycle, and needs no policy.
        log.warning("no lifecycle policies on this server", extra={"status": answer.status})
        return False

    def _put(self, path: str, body: Mapping[str, Any]) -> None:
        answer = self._bulk.ask("PUT", path, body)
        if answer.status != _OK:
            # Without it documents would be stored that nobody can ask for.
            error = answer.body.get("error") if isinstance(answer.body, dict) else answer.body
            raise RuntimeError(
                f"{path}: expected the template to be taken, got {answer.status} {error}; does "
                "somebody else have templates for the same index names?"
            )

    def _indices(self, stem: str) -> list[str]:
        return list(self._bulk.ask("GET", f"/{stem}-*/_alias", None, **_ANY).body)

    def _pattern(self, deployment: str) -> str:
        return f"{index_stem(self._options.prefix, 'inferences', deployment)}-*"

    def _remove_older(self, deployment: str, revisions: Mapping[str, int]) -> None:
        """Delete rows of older revisions: of another day, or more than the newer one has."""

        def deletions() -> Iterator[Operation]:
            query = "inference_id", list(revisions)
            for hit in self._hits(deployment, [query], ["inference_id", "revision"]):
                source = hit["_source"]
                if source["revision"] < revisions[source["inference_id"]]:
                    yield Operation("delete", {"_index": hit["_index"], "_id": hit["_id"]})

        self._bulk.send(deletions())

    def _hits(
        self, deployment: str, terms: Iterable[tuple[str, list[str]]], fields: list[str]
    ) -> Iterator[dict[str, Any]]:
        """Yield the documents of a deployment that have one of some terms, as they are now."""
        self._refresh(deployment)
        for name, values in terms:
            for begin in range(0, len(values), _IDS):
                wanted = {"terms": {name: values[begin : begin + _IDS]}}
                yield from self._search(deployment, {"filter": [wanted]}, fields)

    def _unmarked(self, deployment: str, span: AlarmSpan) -> Iterator[dict[str, Any]]:
        self._refresh(deployment)
        times = {"gte": span.start_us} | ({} if span.end_us is None else {"lt": span.end_us})
        wanted: list[dict[str, Any]] = [{"range": {"time_us": times}}]
        if span.version is not None:
            wanted.append({"term": {"version": span.version}})
        marked = {"term": {"alarms": span.id}}
        return self._search(deployment, {"filter": wanted, "must_not": [marked]}, ["alarms"])

    def _refresh(self, deployment: str) -> None:
        self._bulk.ask("POST", f"/{self._pattern(deployment)}/_refresh", None, **_ANY)

    def _search(
        self, deployment: str, wanted: Mapping[str, Any], fields: list[str]
    ) -> Iterator[dict[str, Any]]:
        of_deployment = {"term": {"deployment": deployment}}
        body: dict[str, Any] = {
            "size": _PAGE,
            "_source": fields,
            "query": {"bool": {**wanted, "filter": [of_deployment, *wanted["filter"]]}},
            # An inference may be in two indices until the older one is removed.
            "sort": ["inference_id", "row", "_index"],
            "track_total_hits": False,
        }
        while True:
            path = f"/{self._pattern(deployment)}/_search"
            answer = self._bulk.ask("POST", path, body, **_ANY)
            if answer.status != _OK:
                raise RuntimeError(f"{path}: expected documents, got {answer.status}")
            hits = answer.body["hits"]["hits"]
            yield from hits
            if len(hits) < _PAGE:
                return
            body["search_after"] = hits[-1]["sort"]


def _revised(batches: Iterable[Batch]) -> dict[str, dict[str, int]]:
    """Return the highest revision of each inference that was stored before, by deployment."""
    found: dict[str, dict[str, int]] = {}
    for batch in batches:
        later = batch.records.filter(pc.greater(batch.records.column("revision"), 0))
        if not later.num_rows:
            continue
        revisions = found.setdefault(batch.deployment, {})
        names = later.column("id").to_pylist()
        for name, revision in zip(names, later.column("revision").to_pylist(), strict=True):
            revisions[name] = max(revision, revisions.get(name, 0))
    return found


def _update(hit: Mapping[str, Any], fields: Mapping[str, Any]) -> Operation:
    head = {"_index": hit["_index"], "_id": hit["_id"], "retry_on_conflict": 3}
    return Operation("update", head, b'{"doc":%b}' % written(dict(fields)))
