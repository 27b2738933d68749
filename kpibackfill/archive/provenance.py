"""Which code, which packages and which notebook a run used, for its record."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from kpibackfill.archive.models import Code
from kpibackfill.version import __version__

PACKAGES = (
    "pandas",
    "numpy",
    "sqlalchemy",
    "papermill",
    "nbclient",
    "ipykernel",
    "jupyterlab",
    "matplotlib",
    "pydantic",
    "pymysql",
    "psycopg",
    "duckdb",
    "pyspark-client",
)
_FOLDER = Path(__file__).parents[1]


def notebook_path(name: str = "kpi_backfill.ipynb") -> Path:
    """The notebook as shipped: inside the installed package, or next to it in a checkout."""
    installed = _FOLDER / "notebooks" / name
    return installed if installed.is_file() else _FOLDER.parent / "notebooks" / name


def cells_digest(notebook: bytes) -> str:
    """SHA-256 of the sources of a notebook's code cells, without the one that papermill injects."""
    cells = json.loads(notebook)["cells"]
    digest = hashlib.sha256()
    for cell in cells:
        if cell["cell_type"] == "code" and "injected-parameters" not in cell["metadata"].get("tags", []):
            digest.update("".join(cell["source"]).encode() + b"\0")
    return digest.hexdigest()


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "kpibackfill": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def code() -> Code:
    """Which code ran: the digest of the package's sources, its git commit, and which files differ from that commit.

    `git_commit` is ``None`` outside a checkout; `difference` is the SHA-256 of ``git diff``, where there is one.
    """
    sources = sources_digest()
    if not (_FOLDER.parent / ".git").exists():
        return Code(sources_sha256=sources)
    try:
        commit = _git("rev-parse", "HEAD").decode().strip()
        status = _git("status", "--porcelain", "--", "kpibackfill", "notebooks").decode("utf-8", "replace")
        changed = tuple(sorted(line[3:] for line in status.splitlines()))
        difference = hashlib.sha256(_git("diff", "HEAD", "--", "kpibackfill", "notebooks")).hexdigest()
    except (OSError, subprocess.SubprocessError):
        return Code(sources_sha256=sources)
    return Code(sources_sha256=sources, git_commit=commit, modified=changed, difference=difference if changed else None)


def sources_digest() -> str:
    """SHA-256 of the names and contents of the package's Python files."""
    digest = hashlib.sha256()
    for path in sorted(_FOLDER.rglob("*.py")):
        digest.update(str(path.relative_to(_FOLDER)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _git(*arguments: str) -> bytes:
    # GIT_DIR and the like, which git sets for a hook, would point it to another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(_FOLDER.parent), *arguments]
    return subprocess.run(command, check=True, capture_output=True, timeout=10, env=environment).stdout
