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


def _wait(url: sa.URL, server: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        time.sleep(0.1)
        if server.poll() is not None:
            raise RuntimeError(f"the private MariaDB server ended with status {server.returncode}; see its log")
        try:
            with sa.create_engine(url, poolclass=sa.NullPool).connect():
                return
        except sa.exc.OperationalError:
            pass
    raise TimeoutError("the private MariaDB server did not start within 30 s")
