"""Database servers for the tests: in a temporary folder, on a loopback port, with a password."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import sqlalchemy as sa

# Must appear in no file; its characters are those that have a meaning in a URL.
PASSWORD = "s3cret:@/#%of-the-tests"


@contextmanager
def connect(url: str | sa.URL) -> Iterator[sa.Connection]:
    """A connection in autocommit mode that is really closed at the end."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        yield connection


class Missing(Exception):
    """The server's programs are not installed on this machine."""


class Server:
    """A server with its data folder; `start` and `kill` any number of times, then `close`."""

    name: str
    user: str
    driver: str
    database = "faults"
    careless: ClassVar[Sequence[str]]
    """Options that make it fast, at the price of losing data if the whole machine fails."""
    _by_force = ""

    def __init__(self, *options: str) -> None:
        self._options = options
        self.folder = Path(tempfile.mkdtemp(prefix=f"kpibackfill-{self.name}-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._initialize()
            self.start()
            self.recreate()
        except BaseException:
            self.close()
            raise

    def url(self, database: str = database, *, port: int | None = None, host: str = "127.0.0.1") -> sa.URL:
        return sa.URL.create(self.driver, self.user, PASSWORD, host, port or self.port, database)

    def start(self, *options: str) -> None:
        """Start it and wait until it answers, which includes crash recovery if it was killed."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command(), *self._options, *options], stdout=log, stderr=log, cwd=self.folder
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                with connect(self.url(self._first_database())):
                    assert self._process.poll() is None, f"another server answers at port {self.port}"
                    return
            except sa.exc.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def recreate(self) -> None:
        """Create an empty database, even if another test left it read-only or the server dead."""
        if self._process is None or self._process.poll() is not None:
            self.start()
        with connect(self.url(self._first_database())) as connection:
            connection.execute(sa.DDL(f"DROP DATABASE IF EXISTS {self.database}{self._by_force}"))
            connection.execute(sa.DDL(f"CREATE DATABASE {self.database}"))

    def kill(self) -> None:
        """Kill it without warning, as when the machine runs out of memory."""
        self._end(signal.SIGKILL)

    def restart(self, *options: str) -> None:
        self._end(signal.SIGKILL)
        self.start(*options)

    def close(self) -> None:
        self._end(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(30)

    def _initialize(self) -> None:
        raise NotImplementedError

    def _command(self) -> Sequence[str]:
        raise NotImplementedError

    def _first_database(self) -> str:
        raise NotImplementedError


class MariaDB(Server):
    name, user, driver = "mariadb", "keeper", "mariadb+pymysql"
    careless = ("--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync")

    def _initialize(self) -> None:
        install = program("mariadb-install-db")
        self._as = ["--user=root"] if os.geteuid() == 0 else []
        quoted = PASSWORD.replace("'", "''")
        (self.folder / "accounts.sql").write_text(
            f"CREATE USER IF NOT EXISTS {self.user}@'127.0.0.1' IDENTIFIED BY '{quoted}';\n"
            f"GRANT ALL ON *.* TO {self.user}@'127.0.0.1' WITH GRANT OPTION;\n",
            encoding="utf-8",
        )
        (self.folder / "tmp").mkdir()
        made = [install, "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", *self._as]
        _run([*made, f"--datadir={self.folder / 'data'}"])

    def _command(self) -> Sequence[str]:
        return [
            program("mariadbd"),
            "--no-defaults",
            *self._as,
            f"--datadir={self.folder / 'data'}",
            # A starting server removes all temporary tables from there, even those of a running server.
            f"--tmpdir={self.folder / 'tmp'}",
            f"--socket={self.folder / 'socket'}",
            f"--pid-file={self.folder / 'pid'}",
            f"--init-file={self.folder / 'accounts.sql'}",
            "--bind-address=127.0.0.1",
            f"--port={self.port}",
            "--character-set-server=utf8mb4",
            "--innodb-buffer-pool-size=32M",
            "--skip-name-resolve",
        ]

    def _first_database(self) -> str:
        return "mysql"


class PostgreSQL(Server):
    name, user, driver = "postgresql", "keeper", "postgresql+psycopg"
    careless = ("-c", "fsync=off")
    _by_force = " WITH (FORCE)"

    def _initialize(self) -> None:
        # It refuses to run as root.
        self._as = [program("setpriv"), "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        if os.geteuid() != 0:
            self._as = []
        data, password = self.folder / "data", self.folder / "password"
        data.mkdir()
        password.write_text(PASSWORD + "\n", encoding="utf-8")
        if self._as:
            for path in (self.folder, data, password):
                shutil.chown(path, "postgres", "postgres")
        made = [*self._as, program("initdb"), "-D", str(data), "-U", self.user, "-E", "UTF8", "--locale=C.UTF-8"]
        _run([*made, "-A", "scram-sha-256", f"--pwfile={password}"])

    def _command(self) -> Sequence[str]:
        return [
            *self._as,
            program("postgres"),
            "-D",
            str(self.folder / "data"),
            "-k",
            str(self.folder),
            "-p",
            str(self.port),
            "-c",
            "listen_addresses=127.0.0.1",
        ]

    def _first_database(self) -> str:
        return "postgres"


class Servers:
    """The servers in use, each started when it is first requested; `close` ends them."""

    def __init__(self, *, careless: bool) -> None:
        self._careless = careless
        self._started: dict[str, Server | Missing] = {}

    def get(self, name: str) -> Server:
        """The server "mariadb" or "postgresql". Raises Missing."""
        if name not in self._started:
            kind = {"mariadb": MariaDB, "postgresql": PostgreSQL}[name]
            try:
                self._started[name] = kind(*(kind.careless if self._careless else ()))
            except Missing as missing:
                self._started[name] = missing
        server = self._started[name]
        if isinstance(server, Missing):
            raise server
        return server

    def close(self) -> None:
        for server in self._started.values():
            if isinstance(server, Server):
                server.close()


def program(name: str) -> str:
    """The path of a server's program; Debian keeps PostgreSQL's and MariaDB's off the usual path."""
    places = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), Path("/usr/sbin")]
    found = shutil.which(name, path=os.pathsep.join(map(str, places))) or shutil.which(name)
    if found is None:
        raise Missing(f"{name} is not installed")
    return found


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _run(command: Sequence[str]) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert ended.returncode == 0, ended.stdout + ended.stderr
