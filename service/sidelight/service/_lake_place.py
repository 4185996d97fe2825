"""Whether the lake of a data folder is in a bucket, as configured and as written down there."""

import logging
from typing import TYPE_CHECKING

from sidelight.adapters import Bucket, Place, place_of
from sidelight.logger import Documents
from sidelight.service.errors import ConfigurationError

if TYPE_CHECKING:
    from sidelight.service._lake_moving import LakeMover
    from sidelight.service._settings import Settings

log = logging.getLogger(__name__)


def note_place(settings: "Settings") -> Place | None:
    """Write down where the lake is, for whoever opens the folder; None when it is all there.

    Raises
    ------
    ConfigurationError
        When files of the folder are in another bucket.

    """
    folder = settings.data / "lake"
    place = _configured(settings)
    known = place_of(folder)
    if known is not None and (place is None or place.url != known.url):
        raise ConfigurationError(
            f"store.lake: expected {known.url}, where files of this folder are, "
            f"got {'none' if place is None else place.url}",
            hint="`sidelight export --backup` makes a folder of its own that has all of them",
        )
    if place is not None and place != known:
        place.save(folder)
    return place


def open_mover(settings: "Settings", documents: Documents) -> "LakeMover | None":
    """Return who sends files to the bucket, not yet begun; None where there is none.

    Raises
    ------
    ConfigurationError, LakeError
        When files are elsewhere, or a secret is not where it should be.

    """
    place = note_place(settings)
    if place is None:
        return None
    # Who has no bucket does not wait for what it needs.
    from sidelight.service._lake_moving import LakeMover  # noqa: PLC0415

    place.settings()
    log.info("the lake goes to a bucket", extra={"url": place.url, "folder": str(settings.data)})
    return LakeMover(
        settings.data,
        Bucket(place),
        documents,
        keep_bytes=settings.store.local_copies,
        copies_archive=settings.store.archive,
    )


def _configured(settings: "Settings") -> Place | None:
    store = settings.store
    if not isinstance(store.lake, str):
        return None
    s3 = store.s3
    if s3 is None:
        return Place(url=store.lake)
    return Place(
        url=store.lake,
        endpoint="" if s3.endpoint is None else str(s3.endpoint).rstrip("/"),
        region=s3.region,
        role_arn=s3.role_arn,
        ca_file="" if s3.ca is None else str(s3.ca),
        access_key_from=s3.access_key_from or "",
        secret_key_from=s3.secret_key_from or "",
        session_token_from=s3.session_token_from or "",
    )
