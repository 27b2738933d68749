"""The notebook in JupyterLab, as an analyst uses it: in a real browser, on the demo."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kpibackfill.archive.provenance import notebook_path
from kpibackfill.demo import build_demo
from kpibackfill.run import RUN_VARIABLE
from tests.browser import chromium

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PATIENCE = 120  # seconds for what takes ten on an idle machine


@contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """JupyterLab in `folder`, with settings and files of its own; gives the address of its notebook."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    hidden = ("JPY_SESSION_NAME", RUN_VARIABLE, "KPIBACKFILL_CONFIG")
    own = {
        name: str(folder / ".jupyter" / name)
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    }
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | own
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
    options += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
    with (folder / "jupyter.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/api?token={token}", server, folder / "jupyter.log")
        yield f"http://127.0.0.1:{port}/lab/tree/kpi_backfill.ipynb?token={token}"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def _wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"JupyterLab did not start: {log.read_text()[-2000:]}")


class Analyst:
    """What a person does with the notebook and sees of it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        page.set_default_timeout(PATIENCE * 1000)

    def open(self, address: str) -> None:
        self.page.goto(address)
        self.wait_until_idle()  # before that a dialog about the kernel opens, and nothing runs

    def wait_until_idle(self) -> None:
        self.page.locator("#jp-main-statusbar :text('| Idle')").wait_for()

    def set(self, **parameters: Any) -> None:
        """Edit the parameters cell with the keyboard."""
        cell = self.page.locator(".jp-Notebook .jp-CodeCell").first
        cell.scroll_into_view_if_needed()
        editor = cell.locator(".cm-content")
        source = editor.inner_text()
        for name, value in parameters.items():
            source, found = re.subn(rf"(?m)^{name}: \w+ = .*$", f"{name} = {value!r}", source)
            assert found == 1, source
        editor.click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(source)

    def run_all(self) -> None:
        """Run All Cells, and wait until the last one has run: its number is a new one."""
        number = self.page.locator(".jp-Notebook .jp-CodeCell .jp-InputPrompt").last
        failed = self.page.locator(".jp-Notebook [data-mime-type='application/vnd.jupyter.error']")
        before = number.text_content()
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        until = time.monotonic() + PATIENCE
        while number.text_content() == before or not re.search(r"\d", number.text_content()):
            assert time.monotonic() < until
            assert not failed.all_text_contents()
            self.page.wait_for_timeout(200)

    def output(self, call: str) -> Any:
        """The output of the cell that calls so."""
        found = self.page.locator(".jp-Notebook .jp-CodeCell").filter(has_text=call).locator(".jp-Cell-outputWrapper")
        found.scroll_into_view_if_needed()
        return found


def stored(database: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(database) as connection:
        return connection.execute("SELECT * FROM ms_fact_kpi_snapshot ORDER BY snapshot_id, kpi_id").fetchall()


def test_an_analyst_runs_the_notebook_sees_the_drift_and_applies_it(tmp_path: Path) -> None:
    (tmp_path / "kpibackfill.toml").write_text('[targets.demo]\nstore = "sqlite:///demo.sqlite"\n')
    shutil.copy(notebook_path(), tmp_path)
    build_demo(tmp_path / "demo.sqlite", until_year=2025)
    before = stored(tmp_path / "demo.sqlite")
    with chromium() as browser, jupyterlab(tmp_path) as address:
        analyst = Analyst(browser.new_page(viewport={"width": 1400, "height": 1000}))
        analyst.open(address)
        analyst.set(from_year=2015, to_year=2025)
        analyst.run_all()

        assert "Nothing is archived while exploring." in analyst.output("kb.begin(").text_content()
        table = analyst.output("kb.drift_table(").locator("table").first
        assert table.locator("tbody tr").first.text_content().strip().startswith("2018Education NPS")
        assert table.locator(".kb-changed").count() > 5
        figures = analyst.output("kb.plot_drift(").locator("img")
        assert figures.count() == 2
        assert all(figures.nth(number).evaluate("image => image.naturalWidth") > 900 for number in range(2))
        page = analyst.output("plan.page")
        assert "cells would change." in page.text_content()
        assert page.locator("td.kb-changes").count() > 3
        assert "Dry run: nothing was written." in analyst.output("kb.apply_plan(").text_content()
        assert "KPI rows" in analyst.output("kb.review_figures(").text_content()
        assert not (tmp_path / "runs").exists()
        assert stored(tmp_path / "demo.sqlite") == before

        analyst.set(apply=True, reason="Fill the missing years.")
        analyst.run_all()
        outcome = analyst.output("kb.apply_plan(").text_content()

    [folder] = (tmp_path / "runs").glob("2*")
    receipt = json.loads((folder / "receipt.json").read_bytes())
    assert "Applied by the papermill execution" in outcome
    assert receipt["run_id"] in outcome
    assert receipt["page_after"]["stale"] > 3
    assert all(f"drush msd:kpi-warm {section['name']}" in outcome for section in receipt["page_after"]["sections"])
    assert (receipt["state"], receipt["started_by"]) == ("applied", "kpibackfill run")
    assert receipt["parameters"]["reason"] == "Fill the missing years."
    assert len(receipt["parameters"]["approved_plan"]) == 64
    assert (folder / "notebook.ipynb").is_file()
    after = stored(tmp_path / "demo.sqlite")
    changed = [row for row in after if row not in before]
    assert len(changed) == receipt["plan"]["rows"] > 20
    assert all(receipt["run_id"] in str(row) for row in changed)
