"""What other detectors said of an inference, published beside what ours say."""

from collections.abc import Iterable

from sidelight.adapters import detector_reply
from sidelight.logger import Document
from sidelight.payloads import Event
from sidelight.service._reply_verdicts import REPLIES


def reply_documents(events: Iterable[Event]) -> list[Document]:
    """Return a document of the collection ``replies`` for each reply of a detector.

    Its key is made of the inference and the kind, so that a redelivery changes nothing.
    """
    documents = []
    for event in events:
        reply = detector_reply(event)
        if reply is None:
            continue
        names = ("deployment", "request_id", "endpoint", "component", "kind", "source")
        documents.append(
            Document(
                collection=REPLIES,
                key="|".join(str(reply[name]) for name in names),
                deployment=reply["deployment"],
                order=reply["time"] or "",
                value=reply,
            )
        )
    return documents
