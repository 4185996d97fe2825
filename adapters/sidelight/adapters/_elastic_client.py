"""One request to a search server, through the official client of its kind."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import orjson

from sidelight.adapters.errors import MissingExtraError

Flavour = Literal["elasticsearch", "opensearch"]

_JSON: Final = "application/json"
_LINES: Final = "application/x-ndjson"


class UnreachableError(Exception):
    """No answer came: refused, reset, timed out. What was asked may have been done."""

    reason = "unreachable"


class OtherProductError(UnreachableError):
    """The client would not talk to this server: it is something else, or too old."""

    reason = "other_product"


@dataclass(frozen=True, slots=True)
class Answer:
    """The status of an answer, and its JSON; an error is an answer."""

    status: int
    body: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ElasticConnection:
    """Where the server is and how it knows us.

    Parameters
    ----------
    url : str
        ``http(s)://HOST:PORT``, without credentials.
    flavour : "elasticsearch" or "opensearch"
        Each server refuses the other's client.
    username, password : str, optional
        Both or none.
    api_key : str, optional
        Encoded as Elasticsearch gives it; not for OpenSearch.
    ca : Path, optional
        PEM file of the authorities; those of the client otherwise.
    verify : bool, default True
        Whether the server's certificate is checked.
    timeout_s : float, default 30.0
        For one answer, seconds.
    connections : int, default 2
        Bulk requests at one time.

    """

    url: str
    flavour: Flavour = "elasticsearch"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    ca: Path | None = None
    verify: bool = True
    timeout_s: float = 30.0
    connections: int = 2

    def __post_init__(self) -> None:
        if (self.username is None) != (self.password is None):
            raise ValueError("elasticsearch: expected a user name and a password, got one of them")
        if self.api_key is not None and (self.username or self.flavour == "opensearch"):
            raise ValueError(
                "elasticsearch: expected an API key alone and for Elasticsearch, got one "
                f"for {self.flavour}{' beside a user name' if self.username else ''}"
            )


class ElasticClient(Protocol):
    """What the writer needs of a client; any thread may call it."""

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask once, with no attempt beyond the first; bytes are lines of a bulk request.

        Raises
        ------
        UnreachableError
            When no answer came.

        """
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


def connect(connection: ElasticConnection) -> ElasticClient:
    """Return a client; it connects at the first request.

    Raises
    ------
    MissingExtraError
        When the package of the flavour is not installed.

    """
    if connection.flavour == "opensearch":
        return _OpenSearchClient(connection)
    return _ElasticsearchClient(connection)


class _ElasticsearchClient:
    def __init__(self, connection: ElasticConnection) -> None:
        try:
            import elasticsearch  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise MissingExtraError(
                "store.elasticsearch", package="elasticsearch", extra="elasticsearch"
            ) from error
        options: dict[str, Any] = {}
        if connection.username is not None:
            options["basic_auth"] = (connection.username, connection.password)
        if connection.api_key is not None:
            options["api_key"] = connection.api_key
        if connection.url.startswith("https:"):
            options |= {"verify_certs": connection.verify, "ssl_show_warn": False}
            if connection.ca is not None:
                options["ca_certs"] = str(connection.ca)
        self._client = elasticsearch.Elasticsearch(
            connection.url,
            request_timeout=connection.timeout_s,
            max_retries=0,
            retry_on_timeout=False,
            connections_per_node=connection.connections,
            http_compress=False,
            **options,
        )
        self._refused = elasticsearch.ApiError
        self._unreachable = elasticsearch.TransportError
        self._other = elasticsearch.UnsupportedProductError

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Answer:
        headers = {"accept": _JSON}
        if body is not None:
            headers["content-type"] = _LINES if isinstance(body, bytes) else _JSON
        try:
            answer = self._client.perform_request(
                method, path, params=params, headers=headers, body=body
            )
        except self._other as error:
            # One of the refusals by its class, and with the status of a success.
            raise OtherProductError(str(error)) from error
        except self._refused as error:
            return Answer(error.meta.status, error.body)
        except self._unreachable as error:
            raise UnreachableError(type(error).__name__) from error
        return Answer(answer.meta.status, answer.body)

    def close(self) -> None:
        self._client.close()


class _OpenSearchClient:
    def __init__(self, connection: ElasticConnection) -> None:
        try:
            import opensearchpy  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise MissingExtraError(
                "store.elasticsearch with flavour opensearch",
                package="opensearch-py",
                extra="opensearch",
            ) from error
        options: dict[str, Any] = {}
        if connection.username is not None:
            options["http_auth"] = (connection.username, connection.password)
        if connection.url.startswith("https:"):
            options |= {"verify_certs": connection.verify, "ssl_show_warn": False}
            if connection.ca is not None:
                options["ca_certs"] = str(connection.ca)
        self._client = opensearchpy.OpenSearch(
            [connection.url],
            timeout=connection.timeout_s,
            max_retries=0,
            retry_on_timeout=False,
            pool_maxsize=connection.connections,
            **options,
        )
        self._error = opensearchpy.TransportError

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Answer:
        content = _LINES if isinstance(body, bytes) else _JSON
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        try:
            answer = self._client.transport.perform_request(
                method,
                path,
                params=dict(params or {}),
                body=data,
                headers={"content-type": content},
            )
        except self._error as error:
            status = error.status_code
            if not isinstance(status, int):
                raise UnreachableError(type(error).__name__) from error
            return Answer(status, error.info)
        return Answer(200, answer)

    def close(self) -> None:
        self._client.close()
