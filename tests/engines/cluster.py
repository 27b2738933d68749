"""A real Spark cluster on this machine: a master, two workers and a Spark Connect server, on loopback only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

SECONDS = 120
_HOST = "127.0.0.1"
_SHORT_LIVED = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""Less thorough compilation by Java, which would take longer than such small queries gain from it."""


@dataclass(frozen=True)
class Cluster:
    """The address of the Spark Connect server, and the workers' processes, each the leader of its group."""

    server: str
    workers: list[subprocess.Popen[bytes]]

    def kill_a_worker(self) -> None:
        """End a worker and its executor with SIGKILL."""
        os.killpg(self.workers[0].pid, signal.SIGKILL)
        self.workers[0].wait()


@contextmanager
def spark_cluster(folder: Path) -> Iterator[Cluster]:
    """Start a cluster, and end all of its processes whatever happens; logs and work files are in `folder`."""
    import pyspark

    home = Path(pyspark.__file__).parent
    master, connect, *pages = _free_ports(5)
    address = f"spark://{_HOST}:{master}"
    settings = {
        "spark.connect.grpc.binding.address": _HOST,
        "spark.connect.grpc.binding.port": connect,
        "spark.driver.bindAddress": _HOST,
        "spark.driver.extraJavaOptions": _SHORT_LIVED,
        "spark.driver.host": _HOST,
        "spark.executor.extraJavaOptions": _SHORT_LIVED,
        "spark.executor.memory": "768m",
        "spark.local.dir": folder,
        "spark.sql.shuffle.partitions": 2,
        "spark.sql.warehouse.dir": folder / "warehouse",
        "spark.ui.enabled": "false",
    }
    with ExitStack() as running:

        def start(name: str, *command: str | int | Path) -> subprocess.Popen[bytes]:
            environment = {
                **os.environ,
                "SPARK_HOME": str(home),
                "SPARK_LOCAL_IP": _HOST,
                "SPARK_DAEMON_JAVA_OPTS": _SHORT_LIVED,
                "SPARK_DAEMON_MEMORY": "512m",
                "SPARK_MASTER_OPTS": "-Dspark.master.rest.enabled=false",
            }
            log = running.enter_context((folder / f"{name}.log").open("wb"))
            process = subprocess.Popen(
                ["bash", *map(str, command)],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            running.callback(_end, process)
            return process

        daemon = home / "bin" / "spark-class"
        name = "org.apache.spark.deploy.master.Master"
        started = start("master", daemon, name, "--host", _HOST, "--port", master, "--webui-port", pages[0])
        _wait(started, master, folder / "master.log")
        workers = [
            start(
                f"worker-{number}", daemon, "org.apache.spark.deploy.worker.Worker", "--host", _HOST, "--cores", 1,
                "--memory", "1g", "--webui-port", page, "--work-dir", folder / f"worker-{number}", address,
            )
            for number, page in enumerate(pages[1:])
        ]  # fmt: skip
        options = [text for name, value in settings.items() for text in ("--conf", f"{name}={value}")]
        server = "org.apache.spark.sql.connect.service.SparkConnectServer"
        started = start(
            "connect", home / "bin" / "spark-submit", "--master", address, "--driver-memory", "1g", "--class", server,
            *options, "spark-internal",
        )  # fmt: skip
        _wait(started, connect, folder / "connect.log")
        yield Cluster(f"{_HOST}:{connect}", workers)


def _free_ports(number: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server((_HOST, 0))) for _ in range(number)]
        return [each.getsockname()[1] for each in sockets]


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection((_HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"Spark did not start: {log.read_text(errors='replace')[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and all processes that it has started."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
