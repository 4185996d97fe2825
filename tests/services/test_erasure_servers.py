"""Erasures where rows are in a real search server and in a real bucket, which come and go."""

import io
import json
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from pyarrow.fs import FileSelector, FileType
from tests.services.conftest import wait_until
from tests.services.elastic_server import ElasticServer, clients
from tests.services.s3_server import BUCKET, S3Server

if TYPE_CHECKING:
    from tests.services.conftest import Service

# What is erased is ours, not the server's: one of the two is enough.
pytestmark = pytest.mark.parametrize("search_server", ["elasticsearch"], indirect=True)

_NAME = "prod/flights"
_MARKER = "marker-of-the-subject"
_INFERENCES = 40
_SUBJECT = frozenset({3, 20, 37})
_MOVED_S = 300.0
_BACK_S = 300.0


@pytest.fixture(autouse=True)
def _clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(clients()))


@pytest.fixture(autouse=True)
def _answering(search_server: ElasticServer, s3: S3Server) -> Iterator[None]:
    """Let nobody find servers that are held, whatever became of the test that holds them."""
    yield
    search_server.go_on()
    s3.process.signal(signal.SIGCONT)


@pytest.fixture
def prefix() -> str:
    """What the names of the indices begin with."""
    return f"e{random.getrandbits(40):x}"


def _send(service: "Service") -> None:
    def events(number: int) -> Iterator[dict[str, Any]]:
        who = _MARKER if number in _SUBJECT else f"somebody-{number % 7}"
        tensor = {"name": "who", "shape": [1], "datatype": "BYTES", "data": [who]}
        for side, tensors in (("request", "inputs"), ("response", "outputs")):
            yield {
                "specversion": "1.0",
                "id": f"r{number}",
                "source": "/x",
                "type": f"org.kubeflow.serving.inference.{side}",
                "namespace": "prod",
                "inferenceservicename": "flights",
                "datacontenttype": "application/json",
                "data": {tensors: [tensor]},
            }

    batch = [event for number in range(_INFERENCES) for event in events(number)]
    headers = {"content-type": "application/cloudevents-batch+json"}
    answer = service.client.post(f"{service.url}/", json=batch, headers=headers)
    assert answer.status_code == 200, answer.text


def _search(server: ElasticServer, prefix: str, **more: Any) -> dict[str, Any]:
    return {
        "url": server.url,
        "index_prefix": prefix,
        "replicas": 0,
        "timeout": "30s",
        "seldon": {"environment": prefix},
        **more,
    }


def _begin(service: "Service") -> str:
    """Order the erasure; return the path at which the service tells of it."""
    order = {"deployment": _NAME, "subject": f"who={_MARKER}", "reason": "asked", "wait": False}
    answer = service.client.post(f"{service.url}/v1/erasures", json=order)
    assert answer.status_code == 202, answer.text
    return f"/v1/erasures/{answer.json()['id']}"


def _is_running(service: "Service", path: str) -> bool:
    answer = service.client.get(service.url + path)
    return answer.status_code == 202 and answer.json()["state"] == "running"


def _wait_done(service: "Service", path: str) -> dict[str, Any]:
    def status() -> int:
        answer = service.client.get(service.url + path)
        assert answer.is_success, answer.text
        return answer.status_code

    wait_until(lambda: status() == 200, "it is done", timeout_s=_BACK_S)
    # The answer to an order is taken once; what is written down of it stays.
    items = service.get("/v1/erasures")["items"]
    (done,) = (item for item in items if path.endswith(item["id"]))
    assert isinstance(done, dict)
    return done


def _indexed(server: ElasticServer, prefix: str) -> dict[str, str]:
    """Return all documents, ours and those in Seldon's layout, as text."""
    found = server.documents(f"{prefix}-inferences-*")
    pattern = f"inference-log-{prefix}-*"
    server.ask("POST", f"/{pattern}/_refresh")
    hits = server.ask("POST", f"/{pattern}/_search", {"size": 1000})["hits"]["hits"]
    return {
        **{f"row {item['inference_id']} {item['row']}": json.dumps(item) for item in found},
        **{f"log {hit['_id']}": json.dumps(hit["_source"]) for hit in hits},
    }


def _text(name: str, content: bytes) -> str:
    """Return bytes as text, beside the rows of what is Parquet."""
    rows = pq.read_table(io.BytesIO(content)).to_pylist() if name.endswith(".parquet") else []
    return content.decode("latin-1") + json.dumps(rows, default=str)


def _objects(s3: S3Server, prefix: str) -> dict[str, str]:
    """Return all objects below a prefix as text."""
    selector = FileSelector(f"{BUCKET}/{prefix}", recursive=True, allow_not_found=True)
    found = {}
    for info in s3.files().get_file_info(selector):
        # One that goes just now is not there.
        if info.type is FileType.File:
            with (
                suppress(FileNotFoundError),
                s3.files().open_input_stream(info.path) as stream,
            ):
                name = info.path.removeprefix(f"{BUCKET}/{prefix}/")
                found[name] = _text(name, stream.read())
    return found


def _with_marker(texts: dict[str, str]) -> list[str]:
    return sorted(name for name, text in texts.items() if _MARKER in text)


def _files(data: Path) -> dict[str, str]:
    """Return all files of a data folder as text."""
    return {
        path.relative_to(data).as_posix(): _text(path.name, path.read_bytes())
        for path in sorted(data.rglob("*"))
        if path.is_file()
    }


def _rows(service: "Service") -> dict[str, list[Any]]:
    """Return the rows by request, without scores, which come a little later than they."""
    items: list[dict[str, Any]] = []

    def is_answered() -> bool:
        answer = service.client.get(f"{service.url}/v1/inferences", params={"limit": 1000})
        # So says a service whose bucket was silent for seconds.
        if answer.status_code == 503:
            return False
        assert answer.status_code == 200, answer.text
        items[:] = answer.json()["items"]
        return True

    wait_until(is_answered, "there is an answer", timeout_s=_BACK_S)
    return {
        item["request_id"]: [row | {"outlier_score": None} for row in item["rows"]]
        for item in items
    }


def _verify(service: "Service") -> None:
    assert service.stop() == 0
    verified = service.command("verify")
    assert verified.returncode == 0, verified.stdout
    told = f"{2 * _INFERENCES} events sealed, {2 * len(_SUBJECT)} of them erased"
    assert told in verified.stdout


def test_an_erasure_waits_for_bucket_and_search_server_and_is_whole_afterwards(
    search_server: ElasticServer,
    s3: S3Server,
    start_service: "Callable[..., Service]",
    tmp_path: Path,
    prefix: str,
) -> None:
    keys = {}
    for name in ("access_key", "secret_key"):
        (tmp_path / name).write_text(getattr(s3.settings, name))
        keys[f"{name}_from"] = str(tmp_path / name)
    bucket = {"endpoint": s3.endpoint, "region": "us-east-1", **keys}
    service = start_service(
        config={
            "erasure": {"deployments": [_NAME]},
            "store": {
                "lake": f"s3://{BUCKET}/{prefix}",
                "archive": True,
                "local_copies": "1B",
                "s3": bucket,
                "elasticsearch": _search(search_server, prefix),
            },
        }
    )
    _send(service)
    service.wait_for(
        lambda metrics: metrics.total("inferences_total") >= _INFERENCES, "all are stored"
    )
    before = _rows(service)
    assert len(before) == _INFERENCES
    service.wait_for(
        lambda _: len(_indexed(search_server, prefix)) >= 2 * _INFERENCES,
        "it is indexed",
        timeout_s=_MOVED_S,
    )
    wait_until(lambda: _with_marker(_objects(s3, prefix)), "it is there", timeout_s=_MOVED_S)
    service.wait_for(
        lambda metrics: metrics.total("lake_waiting_files") == 0, "none waits", timeout_s=_MOVED_S
    )
    indexed = _indexed(search_server, prefix)
    assert (len(indexed), len(_with_marker(indexed))) == (2 * _INFERENCES, 2 * len(_SUBJECT))

    # They are there and do not answer: killed ones take most of a minute to come back.
    s3.process.signal(signal.SIGSTOP)
    search_server.pause()
    path = _begin(service)
    wait_until(
        lambda: b"erasure not done, tried again" in service.log.read_bytes(),
        "it cannot reach the bucket",
        timeout_s=_BACK_S,
    )
    assert _is_running(service, path)
    service.kill()
    s3.process.signal(signal.SIGCONT)
    service.start()
    wait_until(lambda: not _with_marker(_objects(s3, prefix)), "bucket", timeout_s=_BACK_S)
    assert _is_running(service, path)
    service.kill()
    service.start()
    assert _is_running(service, path)
    search_server.go_on()

    done = _wait_done(service, path)
    assert (done["inferences"], done["keys"], done["plain"]) == (3, 6, [])
    after = _indexed(search_server, prefix)
    assert _with_marker(after) == []
    assert after == {name: text for name, text in indexed.items() if _MARKER not in text}
    assert _with_marker(_objects(s3, prefix)) == []
    gone = {f"r{number}" for number in _SUBJECT}
    assert _rows(service) == {name: rows for name, rows in before.items() if name not in gone}
    _verify(service)
    assert _with_marker(_files(service.data)) == []


def test_rows_that_a_search_server_alone_has_are_erased_before_they_can_be_found(
    search_server: ElasticServer, start_service: "Callable[..., Service]", prefix: str
) -> None:
    service = start_service(
        config={
            "erasure": {"deployments": [_NAME]},
            "store": {
                "lake": False,
                # Nobody finds anything before somebody asks for it.
                "elasticsearch": _search(search_server, prefix, refresh="1000s"),
            },
        }
    )
    _send(service)
    service.wait_for(
        lambda told: told.total("indexed_documents_total") >= _INFERENCES,
        "it is indexed",
        timeout_s=_MOVED_S,
    )

    done = _wait_done(service, _begin(service))

    assert (done["inferences"], done["keys"]) == (3, 6)
    indexed = _indexed(search_server, prefix)
    assert _with_marker(indexed) == []
    assert len(indexed) == 2 * (_INFERENCES - len(_SUBJECT))
    _verify(service)
