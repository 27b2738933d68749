"""A MariaDB server of the benchmark's own, that goes away with it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from benchmarks.load import PARQUET


@contextmanager
def private_mariadb(folder: Path | None = None, buffer_pool: str = "2G") -> Iterator[sa.URL]:
    """The URL of a server that listens on a socket in its folder only; its data are kept if `folder` is given."""
    with tempfile.TemporaryDirectory(prefix="kpibackfill-bench-") as temporary:
        home = (folder or Path(temporary)).resolve()
        data = home / "mariadb"
        common = ["--no-defaults", f"--datadir={data}", "--user=root"]
        if not (data / "mysql").is_dir():
            data.mkdir(parents=True, exist_ok=True)
            install = ["mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
            subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
        # Of its own: a server that starts sweeps its folder of temporary tables, those of another one too.
        (home / "tmp").mkdir(exist_ok=True)
        with (home / "mariadb.log").open("ab") as log:
            options = [
                f"--socket={home / 'mariadb.sock'}",
                f"--tmpdir={home / 'tmp'}",
                "--skip-networking",
                f"--pid-file={home / 'mariadb.pid'}",
                f"--innodb-buffer-pool-size={buffer_pool}",
                "--innodb-flush-log-at-trx-commit=2",
                "--character-set-server=utf8mb4",
                "--local-infile=1",
            ]
            server = subprocess.Popen(["mariadbd", *common, *options], stdout=log, stderr=log)
        try:
            options_of_driver = {"unix_socket": f"{home / 'mariadb.sock'}", "local_infile": "1", "charset": "utf8mb4"}
            url = sa.URL.create("mysql+pymysql", "root", query=options_of_driver)
            _wait(url, server)
            yield url
        finally:
            server.terminate()
            server.wait(60)


@contextmanager
def sail(folder: Path) -> Iterator[tuple[sa.URL, Path]]:
    """The URL of a Sail server, for a session that keeps its tables, and the file of its process id."""
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
            raise RuntimeError(f"the server ended with status {server.returncode}; see its log")
        try:
            with sa.create_engine(url, poolclass=sa.NullPool).connect():
                return
        except sa.exc.OperationalError:
            pass
    raise TimeoutError("the server did not start within 30 s")
