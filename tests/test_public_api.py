"""The public names: type checkers see what is loaded lazily, and find misuse."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kpibackfill

MISUSES = {
    'kb.make_plann(kb.begin(), "drift")': 'Module has no attribute "make_plann"',
    'kb.begin(tagret="demo")': 'Unexpected keyword argument "tagret" for "begin"',
    'kb.begin(from_year="2024")': 'Argument "from_year" to "begin" has incompatible type "str"',
    'kb.begin("demo")': 'Too many positional arguments for "begin"',
    "kb.compare(kb.begin())": 'Argument 1 to "compare" has incompatible type "Run"',
    "kb.make_plan(kb.begin())": 'Missing positional argument "drift" in call to "make_plan"',
    'kb.Value("2024", 1)': 'Argument 1 to "Value" has incompatible type "str"',
}


def test_type_checkers_see_the_names_that_are_loaded_lazily() -> None:
    (block,) = [
        node.body
        for node in ast.parse(Path(kpibackfill.__file__).read_text(encoding="utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    imports = [node for node in block if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(block)
    assert {alias.name: node.module for node in imports for alias in node.names} == kpibackfill._PUBLIC
    assert all(alias.asname == alias.name for node in imports for alias in node.names)
    for name in kpibackfill.__all__:
        assert getattr(kpibackfill, name) is not None


@pytest.mark.slow
def test_a_type_checker_finds_each_misuse_and_nothing_else(tmp_path: Path) -> None:
    lines = ["import kpibackfill as kb", "kb.make_plan(run := kb.begin(), kb.compare(kb.compute_kpis(run)))", *MISUSES]
    (tmp_path / "analysis.py").write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--hide-error-context", "--no-error-summary", "analysis.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(errors) == len(MISUSES), done.stdout + done.stderr
    for line, (error, misuse) in enumerate(zip(errors, MISUSES, strict=True), start=3):
        assert error.startswith(f"analysis.py:{line}: error: {MISUSES[misuse]}")
