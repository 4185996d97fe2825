"""The key that signs the checkpoints of this configuration's archive."""

from sidelight.logger import Signer
from sidelight.service._settings import Settings


def signer_of(settings: Settings) -> Signer:
    """Return the signer; its key is made in the data folder when none is configured."""
    audit = settings.audit
    own = settings.data / "access" / "checkpoints.pem"
    return Signer.load(
        audit.signing_key or own, trusted=audit.trusted_keys, create=audit.signing_key is None
    )
