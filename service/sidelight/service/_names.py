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


def full_name(text: str) -> str:
    """Return the stored form of a name that somebody asks for, which takes a namespace.

    A name alone would be an empty answer, which reads as if nothing had ever been stored.

    Raises
    ------
    ValueError
        When it has no namespace, or nothing else.

    """
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name):
        raise ValueError(f"expected namespace/name, got {text!r}")
    return stored_name(text)


def one_name(text: str) -> str:
    """Return the stored form of a name that keeps or deletes something, which is no pattern.

    Taken for a name, a pattern would keep, or delete, nothing, and say that it was done.

    Raises
    ------
    ValueError
        When it has no namespace, nothing else, or a star that is not written as ``%2A``.

    Examples
    --------
    >>> one_name("prod/*")
    Traceback (most recent call last):
    ValueError: expected the name of one deployment, got 'prod/*'; ask once for each

    """
    if "*" in text:
        raise ValueError(f"expected the name of one deployment, got {text!r}; ask once for each")
    return full_name(text)


DeploymentName = Annotated[str, AfterValidator(full_name)]

OneDeployment = Annotated[str, AfterValidator(one_name)]
