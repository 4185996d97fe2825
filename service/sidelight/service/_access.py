"""Who asks the API, what that takes, and what a token limited to namespaces may see."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sidelight.service._authorization import token_text
from sidelight.service._settings import Settings
from sidelight.service._tokens import ROLES, Role, Tokens
from sidelight.service.errors import NotFound

# By method and path of the OpenAPI document. What is not here takes an administrator.
NEEDED: Final[Mapping[tuple[str, str], Role | None]] = {
    # A kubelet sends no token.
    ("GET", "/healthz"): None,
    ("GET", "/readyz"): None,
    ("GET", "/metrics"): "read",
    ("GET", "/openapi.json"): "read",
    ("GET", "/"): "read",
    ("GET", "/v1/deployments"): "read",
    ("GET", "/v1/deployments/{namespace}/{name}"): "read",
    ("GET", "/v1/inferences"): "read",
    ("GET", "/v1/inferences/export"): "read",
    ("GET", "/v1/inferences/{inference_id}"): "read",
    ("GET", "/v1/inferences/{inference_id}/raw/{side}"): "read",
    ("GET", "/v1/verdicts"): "read",
    ("GET", "/v1/alarms"): "read",
    ("GET", "/v1/explanations/{explanation_id}"): "read",
    ("POST", "/v1/explanations"): "explain",
    ("POST", "/v1/feedback"): "ingest",
}
# Answers about every namespace at once, which cannot be narrowed.
WHOLE: Final = frozenset({"/metrics", "/"})
# Lists that a limited token gets for one deployment at a time.
BY_DEPLOYMENT: Final = frozenset(
    {"/v1/inferences", "/v1/inferences/export", "/v1/verdicts", "/v1/alarms"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks.

    Parameters
    ----------
    name : str
        The token's id, or ``local`` where no tokens are required.
    roles : frozenset of Role
        What the caller may do.
    namespaces : frozenset of str or None
        The only ones the caller may see, in their stored form; None for all.

    """

    name: str
    roles: frozenset[Role]
    namespaces: frozenset[str] | None = None

    def may_see(self, deployment: str) -> bool:
        """Whether a deployment, in its stored form, is in the caller's namespaces."""
        return self.namespaces is None or deployment.partition("/")[0] in self.namespaces

    def must_see(self, deployment: str, what: str) -> None:
        """Raise ``NotFound`` for what is not the caller's, as for what is not there."""
        if not self.may_see(deployment):
            raise NotFound(f"no {what}")


LOCAL: Final = Caller(name="local", roles=frozenset(ROLES))


class Access:
    """Finds out who asks.

    Parameters
    ----------
    settings : Settings
        Say whether tokens are required, and where they are.

    """

    def __init__(self, settings: Settings) -> None:
        self.is_required = tokens_required(settings)
        self.is_metrics_open = settings.auth.metrics == "none"
        self._tokens = Tokens(settings.data)

    def caller_of(self, authorization: str | None) -> Caller | None:
        """Return who asks, by the header ``Authorization``; None for nobody who is known."""
        if not self.is_required:
            return LOCAL
        token = self._tokens.find(token_text(authorization or ""))
        if token is None:
            return None
        namespaces = None if token.namespaces is None else frozenset(token.namespaces)
        return Caller(name=token.id, roles=token.allowed, namespaces=namespaces)


def tokens_required(settings: Settings) -> bool:
    """Whether callers need a token: on every address but loopback, and where it is asked for."""
    return settings.auth.required or not is_loopback(settings.listen.host)


def is_loopback(host: str) -> bool:
    """Whether nobody outside this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
