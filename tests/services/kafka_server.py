"""A real Apache Kafka broker (KRaft, one node) from Maven's jars."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from tests.services.server_process import ServerProcess, cached, free_ports, needed, run

_FILES: Final = Path(__file__).parent / "kafka"
_VERSION: Final = "4.2.1"
_CLUSTER: Final = "c2lkZWxpZ2h0LXRlc3RzMQ"  # any 16 bytes in base64url
_ADMIN_S: Final = 120.0
_POLL_S: Final = 0.1

_PROPERTIES: Final[Mapping[str, object]] = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "BROKER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,BROKER:PLAINTEXT",
    "auto.create.topics.enable": "false",
    # One broker cannot hold three replicas.
    "default.replication.factor": 1,
    "min.insync.replicas": 1,
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 1,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 1,
    # A killed broker is refused as its own double until its session is over: 9 s by default.
    "broker.session.timeout.ms": 2000,
    "broker.heartbeat.interval.ms": 250,
    # A test does not wait for company before its group is balanced.
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1000,
    "log.cleaner.threads": 1,
    "log.cleaner.dedupe.buffer.size": 4194304,
    "num.network.threads": 2,
    "num.io.threads": 4,
}


def _prepare(folder: Path) -> None:
    run(
        *(needed("mvn"), "-q", "-B", "-f", _FILES / "pom.xml", "dependency:copy-dependencies"),
        f"-DoutputDirectory={folder}",
    )


class KafkaServer:
    """One broker with its own folder and ports, which it keeps when it is started again.

    Parameters
    ----------
    folder : Path
        For its data, its settings and its log.
    properties : mapping, optional
        Settings of the broker beside the usual ones.

    """

    def __init__(self, folder: Path, properties: Mapping[str, object] | None = None) -> None:
        java = needed("java")
        jars = cached(f"kafka-{_VERSION}", _prepare)
        port, controller = free_ports(2)
        self.servers = f"127.0.0.1:{port}"
        listeners = f"BROKER://{self.servers}"
        told = {
            **_PROPERTIES,
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": listeners,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "log.dirs": str(folder / "data"),
            **(properties or {}),
        }
        settings = folder / "server.properties"
        settings.write_text("".join(f"{name}={value}\n" for name, value in told.items()))
        words = [
            *(java, "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            f"-Dlog4j2.configurationFile={_FILES / 'log4j2.properties'}",
            *("-cp", f"{jars}/*"),
        ]
        run(
            *(*words, "kafka.tools.StorageTool", "format", "--ignore-formatted"),
            *("-t", _CLUSTER, "-c", settings),
        )
        self._data = folder / "data"
        self.process = ServerProcess([*words, "kafka.Kafka", settings], folder)

    def start(self) -> None:
        """Start, or start again; return when it takes connections."""
        self.process.start(lambda told: b"Kafka Server started" in told)

    def stop(self) -> None:
        """End it in good order."""
        self.process.stop()

    def kill(self) -> None:
        """End it with SIGKILL; its data stays."""
        self.process.kill()

    def close(self) -> None:
        """End it and delete its data."""
        self.process.kill()
        shutil.rmtree(self._data, ignore_errors=True)

    def create_topic(
        self,
        name: str,
        *,
        n_partitions: int = 1,
        client: Mapping[str, Any] | None = None,
        **config: Any,
    ) -> str:
        """Make a topic with settings such as ``max_message_bytes=1000``; return its name."""
        told = {key.replace("_", "."): str(value) for key, value in config.items()}
        admin = AdminClient({"bootstrap.servers": self.servers, "log_level": 0, **(client or {})})
        deadline = time.monotonic() + _ADMIN_S
        while not self._is_made(admin, NewTopic(name, n_partitions, config=told)):
            assert time.monotonic() < deadline, f"{name} cannot be made"
            time.sleep(_POLL_S)
        return name

    @staticmethod
    def _is_made(admin: AdminClient, topic: NewTopic) -> bool:
        try:
            admin.create_topics([topic])[topic.topic].result(_ADMIN_S)
        except KafkaException as error:
            code = error.args[0].code()
            # A broker that stood still is none for its controller, until it says that it is there.
            if code == KafkaError.INVALID_REPLICATION_FACTOR:
                return False
            # What was asked before came late.
            if code != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        return True
