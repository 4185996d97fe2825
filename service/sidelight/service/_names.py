"""Names of deployments as people write them, in the one form in which they are stored."""

from typing import Annotated
from urllib.parse import unquote

from pydantic import AfterValidator

from sidelight.logger import deployment_name


def stored_name(text: str) -> str:
    """Return the stored form of a deployment's name, in which what a URL cannot carry is encoded.

    A stored name is returned as it is, so that it can be pasted into an address and into a query.

    Examples
    --------
    >>> stored_name("prod/a b"), stored_name("prod/a%20b")
    ('prod/a%20b', 'prod/a%20b')
    >>> stored_name("flights")
    'flights'

    """
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name):
        return text
    return deployment_name(unquote(namespace), unquote(name))


DeploymentName = Annotated[str, AfterValidator(stored_name)]
