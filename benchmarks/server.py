"""Database servers that exist only as long as the benchmark."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from benchmarks.load import PARQUET
from tests.servers import MariaDB, PostgreSQL, Server

MARIADB = ("--innodb-buffer-pool-size=2G", "--innodb-flush-log-at-trx-commit=2", "--local-infile=1")
POSTGRESQL = ("-c", "shared_buffers=2GB", "-c", "max_wal_size=4GB")


@contextmanager
def private(engine: str) -> Iterator[Server]:
    """A server of our own, started as in the tests, with memory for large tables."""
    server: Server = MariaDB(*MARIADB) if engine == "mariadb" else PostgreSQL(*POSTGRESQL)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def sail(folder: Path) -> Iterator[tuple[sa.URL, Path]]:
    """The URL of a Sail server, for a session that keeps its tables, and the file with its process id."""
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pysail", "spark", "server", "--ip", "127.0.0.1", "--port", str(port)]
    with (folder / "sail.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        (folder / "sail.pid").write_text(str(server.pid))
        os.environ[PARQUET] = str(folder)
        url = sa.URL.create(
            "spark", host="127.0.0.1", port=port, query={"session_id": str(uuid.uuid4()), "user_id": "bench"}
        )
        _wait(url, server)
        yield url, folder / "sail.pid"
    finally:
        server.terminate()
        server.wait(60)
        shutil.rmtree(folder)


def _wait(url: sa.URL, server: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        time.sleep(0.1)
        if server.poll() is not None:
            raise RuntimeError(f"the server exited with status {server.returncode}; see its log")
        try:
            with sa.create_engine(url, poolclass=sa.NullPool).connect():
                return
        except sa.exc.OperationalError:
            pass
    raise TimeoutError("the server did not start within 30 s")
