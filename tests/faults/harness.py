"""A site for trying faults: a database with the reference in it, its configuration, and what must hold after."""

from __future__ import annotations

import json
import os
import secrets
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from kpibackfill.archive.run_record import RunRecord
from kpibackfill.archive.verify import verify
from kpibackfill.config import Config, load_config
from kpibackfill.database import php_serialize
from kpibackfill.database.engine import writing
from kpibackfill.errors import KpiBackfillError
from kpibackfill.lifecycle.settle import as_json, settle
from kpibackfill.numbers import float4
from tests.databases import Database, connect, dump, write_config
from tests.servers import PASSWORD, Server

REPOSITORY = Path(__file__).parents[2]
FACTS, SNAPSHOTS, TAGS = "ms_fact_kpi_snapshot", "ms_snapshot", "cachetags"
FEW: dict[str, Any] = {
    "target": "test",
    "from_year": 2023,
    "to_year": 2025,
    "kpis": "education_nps,total_new_member_signups",
    "as_of": "2026-11-22T12:00:00",
    "apply": True,
}
Dump = dict[str, list[tuple[Any, ...]]]


@dataclass
class Child:
    """One run in a process of its own; `status` is waitpid's."""

    pid: int
    folder: Path
    name: str

    def wait(self) -> int:
        """Its exit status; negative for the signal that ended it."""
        return int(self.wait_for("ended", 120))

    def wait_for(self, what: str, seconds: float = 30) -> str:
        """Wait for the file `name.what` that it writes, and return its text."""
        path = self.folder / f"{self.name}.{what}"
        deadline = time.monotonic() + seconds
        while not path.exists():
            assert time.monotonic() < deadline, f"{path.name} never came: {self.errors}"
            time.sleep(0.002)
        return path.read_text(encoding="utf-8")

    @property
    def run_id(self) -> str:
        return self.wait_for("run")

    @property
    def errors(self) -> str:
        path = self.folder / f"{self.name}.stderr"
        return path.read_text(encoding="utf-8") if path.exists() else ""


class Forge:
    """The process that runs are forked from: importing everything for each would take seconds."""

    def __init__(self) -> None:
        environment = os.environ | {"FAULTS_PASSWORD": PASSWORD, "MPLBACKEND": "agg"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.child"],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, folder: Path, **order: Any) -> Child:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order |= {"folder": str(folder), "name": secrets.token_hex(4)}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Child(int(self._process.stdout.readline()), folder, order["name"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


@dataclass
class Site:
    """`database` is reached by the test itself; the configuration may go through a proxy's port."""

    database: Database
    folder: Path
    forge: Forge
    server: Server | None = None
    before: Dump = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.configure()
        self.before = dump(self.database)

    @property
    def name(self) -> str:
        return self.database.name

    @property
    def config(self) -> Config:
        return load_config(self.folder / "kpibackfill.toml")

    def configure(self, port: int | None = None, user: str | None = None, **settings: Any) -> None:
        url = sa.make_url(self.database.url)
        text = self.database.url
        if self.server is not None:
            who = f"{user or url.username}:${{FAULTS_PASSWORD}}"
            text = f"{url.drivername}://{who}@127.0.0.1:{port or url.port}/{url.database}"
        write_config(self.folder, self.database, **({"store": text} | settings))

    def start(self, parameters: Mapping[str, Any] | None = None, **order: Any) -> Child:
        return self.forge.start(self.folder, parameters={**FEW, **(parameters or {})}, **order)

    def run(self, parameters: Mapping[str, Any] | None = None, **order: Any) -> Child:
        child = self.start(parameters, **order)
        child.wait()
        return child

    def at_gate(self, parameters: Mapping[str, Any] | None = None, **order: Any) -> tuple[Child, Path]:
        """A run that has its plan and waits; writing to the path lets it apply."""
        gate = self.folder / f"gate-{secrets.token_hex(4)}"
        os.mkfifo(gate)
        child = self.start(parameters, gate=str(gate), **order)
        child.wait_for("plan")
        return child, gate

    def restore(self) -> None:
        """Restore what a run may have changed."""
        now = dump(self.database)
        with connect(self.database.url) as connection:
            for table in (SNAPSHOTS, FACTS, TAGS):
                if now.get(table) != self.before.get(table):
                    self._fill(connection, table)

    def _fill(self, connection: sa.Connection, name: str) -> None:
        reflected = sa.Table(name, sa.MetaData(), autoload_with=connection)
        names = [column.name for column in reflected.columns]
        table = sa.table(name, *map(sa.column, names))
        connection.execute(sa.delete(table))
        connection.execute(sa.insert(table), [dict(zip(names, row, strict=True)) for row in self.before[name]])

    def plan(self, run_id: str) -> dict[tuple[int, str], dict[str, Any]]:
        document = json.loads((self.config.runs_dir / run_id / "plan.json").read_bytes())
        return {(row["snapshot_id"], row["kpi_id"]): row for row in document["rows"]}

    def found(self, run_id: str, now: Dump | None = None) -> str:
        """ "before" or "after": which image of the run's plan the database is, or an AssertionError for neither."""
        now = now or dump(self.database)
        changed = {table for table in now if now[table] != self.before[table]}
        if not changed:
            return "before"
        assert changed == {FACTS, TAGS}, f"these tables changed: {changed}"
        planned = self.plan(run_id)
        old, new = _by_key(self.before[FACTS]), _by_key(now[FACTS])
        assert {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)} == planned.keys()
        for key, row in planned.items():
            value, *period, meta = new[key]
            assert (float4(value), *period) == (row["value_f4"], row["period_year"], row["period_month"])
            assert (php_serialize.loads(meta) or {})["run_id"] == run_id
        base = "makerspace_snapshot:kpi"
        tags = {base, *(f"{base}:{kpi_id}" for _, kpi_id in planned)}
        counts: dict[str, int] = dict(self.before[TAGS])
        assert dict(now[TAGS]) == counts | {tag: counts.get(tag, 0) + 1 for tag in tags}
        return "after"

    def judge(self, run_id: str, *, verified: bool = True) -> str:
        """Compare database, record and ledger of a run that was hit; returns "before" or "after"."""
        with writing(sa.make_url(self.database.url), self.config.site):
            pass  # a server may still be at the commit of a process that is gone
        image = self.found(run_id)
        record = RunRecord(self.config.runs_dir, run_id)
        if (record.folder / "receipt.json").exists():
            self._hold_to(image, record)
            if verified:
                verdict = verify(self.config.runs_dir)
                assert not verdict.findings, [str(finding) for finding in verdict.findings]
        else:
            assert image == "before"
        self.check_private()
        return image

    def judge_later(self, run_id: str, seconds: float = 20) -> str:
        """As `judge`, once no transaction of the run is left in the database."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.judge(run_id)
            except KpiBackfillError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _hold_to(self, image: str, record: RunRecord) -> None:
        receipt = record.receipt.as_json()
        if receipt["ended_at"] is not None:
            assert (receipt["state"] == "applied") == (image == "after"), (receipt["state"], receipt["error"], image)
        elif receipt["state"] == "planned":
            assert image == "before", "the record says that nothing was written yet"
        try:
            settled = as_json(record.run_id, settle(self.config, record.run_id))
        except KpiBackfillError as error:
            if error.code != "nothing_unknown":
                raise
            assert receipt["ended_at"] is not None or receipt["state"] == "planned"
        else:
            assert settled["outcome"] == {"before": "not_in_effect", "after": "applied"}[image]

    def check_private(self) -> None:
        """Nothing that was left has a password, and nobody else may read a run's files."""
        needles = [PASSWORD.encode(), quote(PASSWORD, safe="").encode(), json.dumps(PASSWORD)[1:-1].encode()]
        for path in self.folder.rglob("*"):
            if path.is_file() and path.suffix != ".sqlite":
                content = path.read_bytes()
                assert not any(needle in content for needle in needles), f"a password in {path}"
            if path.is_relative_to(self.config.runs_dir) and not path.is_symlink():
                mode = stat.S_IMODE(path.stat().st_mode)
                assert mode == (0o700 if path.is_dir() else 0o600), f"{path} is {mode:o}"


def _by_key(rows: list[tuple[Any, ...]]) -> dict[tuple[int, str], tuple[Any, ...]]:
    return {row[-6:-4]: row[-4:] for row in rows}


@contextmanager
def meanwhile(work: Any) -> Iterator[None]:
    """Do `work` in a thread while the block runs."""
    raised: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001
            raised.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)
    if raised:
        raise raised[0]
