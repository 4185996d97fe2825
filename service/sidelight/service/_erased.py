"""Which inferences were erased, so that whoever asks for one is told when and why."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sidelight.logger import Document, Documents
from sidelight.service._erasure_orders import COLLECTION as ERASURES
from sidelight.service.errors import Gone

_COLLECTION: Final = "erased_inferences"


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What is still known of an erased inference.

    Parameters
    ----------
    deployment : str
        Whose it was.
    erasure, time, reason : str
        Which erasure took it, when that was decided, and why.

    """

    deployment: str
    erasure: str
    time: str
    reason: str

    def problem(self, what: str) -> Gone:
        """Return what to raise for somebody who asks for it."""
        return Gone(
            f"the {what} was erased at {self.time}: {self.reason}",
            hint=f"GET /v1/erasures/{self.erasure} says how much was erased with it",
        )


def note_erased(ids: Iterable[str], *, deployment: str, erasure: str) -> list[Document]:
    """Return documents that tell of inferences which erasure took them.

    An id is a hash: it names nobody who does not know deployment and request id already.
    """
    return [
        Document(
            collection=_COLLECTION, key=each, deployment=deployment, value={"erasure": erasure}
        )
        for each in ids
    ]


def find_erased(documents: Documents, inference_id: str) -> Erased | None:
    """Return what is known of an erased inference; None for any other."""
    noted = documents.get(_COLLECTION, inference_id)
    value = None if noted is None else documents.get(ERASURES, noted["erasure"])
    if value is None:
        return None
    return Erased(
        deployment=value["deployment"],
        erasure=value["id"],
        time=value["time"],
        reason=value["reason"],
    )
