"""Identities of a folder that an older version wrote move to where they are remembered now."""

import logging
from itertools import islice
from typing import Final

from sidelight.logger._journal import Commit, Journals
from sidelight.logger._pairing_state import PairState

log = logging.getLogger(__name__)

_OLD_PREFIX: Final = b"s"
_KEYS_A_COMMIT: Final = 50_000


def move_old_identities(journals: Journals, group: str) -> int:
    """Move what older versions kept in the state of the group; return how many it were.

    It is done in pieces, each of them whole or not at all, so it may be killed and begun again.
    """
    n_moved = 0
    while old := list(islice(journals.scan(group, _OLD_PREFIX), _KEYS_A_COMMIT)):
        commit = Commit(
            group=group,
            journal="events",
            state=dict.fromkeys(key for key, _ in old),
            remembered={key[1:]: PairState.unpack(value).remember() for key, value in old},
        )
        journals.commit(commit)
        n_moved += len(old)
        log.info("identities of an older version moved", extra={"moved": n_moved})
    return n_moved
