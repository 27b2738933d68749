"""A MariaDB server of the benchmark's own, that goes away with it."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa


@contextmanager
def private_mariadb(folder: Path | None = None, buffer_pool: str = "2G", port: int = 33071) -> Iterator[sa.URL]:
    """The URL of a server that listens on loopback only; its data are kept if `folder` is given."""
    with tempfile.TemporaryDirectory(prefix="kpibackfill-bench-") as temporary:
        home = (folder or Path(temporary)).resolve()
        data = home / "mariadb"
        common = ["--no-defaults", f"--datadir={data}", "--user=root"]
        if not (data / "mysql").is_dir():
            data.mkdir(parents=True, exist_ok=True)
            install = ["mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
            subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
        with (home / "mariadb.log").open("ab") as log:
            options = [
                f"--socket={home / 'mariadb.sock'}",
                f"--port={port}",
                "--bind-address=127.0.0.1",
                f"--pid-file={home / 'mariadb.pid'}",
                f"--innodb-buffer-pool-size={buffer_pool}",
                "--innodb-flush-log-at-trx-commit=2",
                "--character-set-server=utf8mb4",
                "--local-infile=1",
            ]
            server = subprocess.Popen(["mariadbd", *common, *options], stdout=log, stderr=log)
        try:
            url = sa.URL.create(
                "mysql+pymysql", "root", host="127.0.0.1", port=port, query={"local_infile": "1", "charset": "utf8mb4"}
            )
            _wait(url, server)
            yield url
        finally:
            server.terminate()
            server.wait(60)


def _wait(url: sa.URL, server: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        try:
            with sa.create_engine(url, poolclass=sa.NullPool).connect():
                return
        except sa.exc.OperationalError:
            if server.poll() is not None:
                raise
            time.sleep(0.1)
    raise TimeoutError("the private MariaDB server did not start within 30 s")
