"""What users install, from a fresh clone, with conda or from the wheel, is what this repository says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import kpibackfill

ROOT = Path(__file__).parents[1]
SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = SETTINGS["project"]
CONDA_NAMES = {"matplotlib": "matplotlib-base"}
"""What conda-forge calls a package, where its name is not PyPI's."""
NOT_FOR_CONDA = {"dev", "duckdb", "spark"}
"""The extras that environment.yml leaves out, as its first lines say."""
OUTSIDE_MAKE = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
"""The environment without what `make test` leaves in it, which would change the output of a second make."""
PRIVATE = (
    "demo.sqlite",
    "live.toml",
    "runs/20241122-1/plan.json",
    "notebooks/runs/20241122-1/plan.json",
    "notebooks/.ipynb_checkpoints/kpi_backfill-checkpoint.ipynb",
    "kpibackfill/demo/demo.sqlite",
)
"""Files that a working copy gathers and that no one else should get."""


def requirements(texts: Iterable[str]) -> dict[str, str]:
    """Name: bounds, as conda would call it; `psycopg[binary]` is `psycopg`, which has its own library there."""
    parsed = [Requirement(text) for text in texts]
    return {CONDA_NAMES.get(entry.name, entry.name): str(entry.specifier) for entry in parsed}


def test_conda_users_get_the_same_packages_and_bounds_as_pip_users() -> None:
    extras = {name: texts for name, texts in PROJECT["optional-dependencies"].items() if name not in NOT_FOR_CONDA}
    wanted = requirements([*PROJECT["dependencies"], *(text for texts in extras.values() for text in texts)])

    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *from_conda, from_pip = environment["dependencies"]
    found = requirements([*from_conda, *(text for text in from_pip["pip"] if text != "--editable .")])

    assert found.pop("pip") == ""
    assert found == wanted | {"python": PROJECT["requires-python"]}
    assert "--editable ." in from_pip["pip"]
    assert environment["channels"] == ["conda-forge"]


def test_every_requirement_has_a_lower_bound_and_no_upper_one() -> None:
    texts = [*PROJECT["dependencies"], *(text for group in PROJECT["optional-dependencies"].values() for text in group)]
    ours, others = "kpibackfill", [Requirement(text) for text in texts]

    assert [str(entry) for entry in others if entry.name != ours and not str(entry.specifier).startswith(">=")] == []
    assert [str(entry) for entry in others if len(entry.specifier) > 1] == []


@dataclass(frozen=True)
class Built:
    """The two distributions and the names of the files in each."""

    wheel: Path
    in_wheel: frozenset[str]
    sdist: Path
    in_sdist: frozenset[str]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Built from a copy of this repository in which private files lie about."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", ".gitignore", *SETTINGS["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]):
        path = ROOT / name.lstrip("/")
        if path.is_dir():
            shutil.copytree(path, source / path.name, symlinks=True)
        else:
            shutil.copy(path, source)
    for name in PRIVATE:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("{}", encoding="utf-8")

    dist = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "hatchling", "build", "--directory", str(dist)], cwd=source)
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = frozenset(archive.namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = frozenset(name.partition("/")[2] for name in archive.getnames())
    return Built(wheel, in_wheel, sdist, in_sdist)


def test_the_wheel_brings_the_package_with_its_data_and_the_notebooks(built: Built) -> None:
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "kpibackfill").rglob("*") if path.is_file()}
    package = {name for name in ours if "__pycache__" not in name}
    notebooks = {f"kpibackfill/notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    metadata = {name for name in built.in_wheel if ".dist-info/" in name}

    assert notebooks
    assert "kpibackfill/py.typed" in package
    assert built.in_wheel - metadata == package | notebooks


def test_the_source_distribution_builds_the_same_wheel(built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()

    run([sys.executable, "-m", "hatchling", "build", "--target", "wheel"], cwd=source)

    assert (source / "dist" / built.wheel.name).read_bytes() == built.wheel.read_bytes()


def test_no_distribution_carries_a_record_a_database_or_a_checkpoint(built: Built) -> None:
    carried = built.in_wheel | built.in_sdist

    assert [name for name in carried if Path(name).name in {Path(private).name for private in PRIVATE}] == []


def test_the_version_is_in_one_place(built: Built) -> None:
    assert built.wheel.name == f"kpibackfill-{kpibackfill.__version__}-py3-none-any.whl"
    assert built.sdist.name == f"kpibackfill-{kpibackfill.__version__}.tar.gz"
    assert "version" in PROJECT["dynamic"]


@pytest.mark.slow
def test_the_wheel_works_in_an_environment_of_its_own(built: Built, tmp_path: Path) -> None:
    run([sys.executable, "-m", "venv", str(tmp_path / "venv")])
    python = str(tmp_path / "venv" / "bin" / "python")
    uv = Path(sys.executable).with_name("uv")
    install = [str(uv), "pip", "install", "--python", python] if uv.exists() else [python, "-m", "pip", "install"]
    run([*install, "--quiet", str(built.wheel)])

    command = str(tmp_path / "venv" / "bin" / "kpibackfill")
    assert "Usage: kpibackfill" in run([command, "--help"], cwd=tmp_path)
    assert kpibackfill.__version__ in run([command, "--version"], cwd=tmp_path)


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [name for line in re.findall(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE) for name in line.split()]

    listed = [line.split()[1] for line in run(["make", "help"]).splitlines()]

    assert sorted(listed) == sorted(targets)
    assert run(["make"]) == run(["make", "help"])


class TestMakeFindsPython:
    def test_passes_over_those_that_are_too_old_or_do_not_run(self, tmp_path: Path) -> None:
        old = script(tmp_path / "old", 'case "$*" in *version_info*) exit 1;; esac')
        broken = script(tmp_path / "broken", "exit 127")
        good = script(tmp_path / "good", f'exec "{sys.executable}" "$@"')

        made = make_venv(tmp_path, old, broken, good)

        assert made.returncode == 0, made.stderr
        assert run([str(tmp_path / ".venv/bin/python"), "-m", "pip", "--version"]).startswith("pip ")

    def test_says_so_where_there_is_none(self, tmp_path: Path) -> None:
        made = make_venv(tmp_path, script(tmp_path / "old", "exit 1"))

        assert made.returncode == 2
        assert "Found no Python 3.11 or later" in made.stderr
        assert not (tmp_path / ".venv").exists()

    def test_says_what_to_install_where_debian_left_out_a_part(self, tmp_path: Path) -> None:
        bare = script(tmp_path / "bare", 'case "$*" in *ensurepip*) exit 1;; esac')

        made = make_venv(tmp_path, bare)

        assert made.returncode == 2
        assert "sudo apt install python3-venv" in made.stderr
        assert not (tmp_path / ".venv").exists()


def make_venv(folder: Path, *pythons: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "Makefile", folder)
    command = ["make", ".venv/bin/python", f"PYTHON={' '.join(pythons)}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=OUTSIDE_MAKE)


def script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def run(command: Sequence[str], cwd: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=OUTSIDE_MAKE)
    assert done.returncode == 0, done.stderr
    return done.stdout
