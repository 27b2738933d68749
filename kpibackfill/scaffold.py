"""Copies the notebooks that come with the package to a folder, with a starter configuration."""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from kpibackfill.archive.provenance import notebook_path
from kpibackfill.config import FILE_NAME
from kpibackfill.errors import KpiBackfillError
from kpibackfill.text import one_line

STARTER = """\
# Targets and site settings of kpibackfill. Passwords come from the environment: ${NAME} is replaced by that variable.

[targets.demo]
store = "sqlite:///demo.sqlite"        # a makerspace to try things out on; `kpibackfill demo` builds it
timezone = "America/New_York"

# [targets.live]
# store = "mysql+pymysql://kpi_writer:${LIVE_DB_PASSWORD}@db.example.org/drupal"
# timezone = "America/New_York"
# require_approval = true

# [site]
# kpi_modules = []                     # Python modules that register more KPIs
"""


@dataclass(frozen=True)
class Copied:
    """The folder, the files that were copied to it, and those that were already there and were left alone."""

    folder: Path
    written: tuple[str, ...]
    kept: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"Copied {one_line(self.folder / name)}" for name in self.written]
        lines += [f"Kept {one_line(self.folder / name)}, which was already there" for name in self.kept]
        go = "" if self.folder.resolve() == Path.cwd() else f"cd {shlex.quote(one_line(self.folder))} && "
        return "\n".join([*lines, f"Next: {go}{shlex.quote(_jupyter())} lab kpi_backfill.ipynb"])


def copy_notebooks(folder: Path) -> Copied:
    """Copy the notebooks to `folder`, with a starter configuration if it has none. Existing files are left alone.

    Raises
    ------
    KpiBackfillError : the folder can't be created or written to.
    """
    written, kept = [], []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sources = {source.name: source.read_bytes() for source in notebook_path().parent.glob("*.ipynb")}
        for name, content in sorted((sources | {FILE_NAME: STARTER.encode()}).items()):
            try:
                with (folder / name).open("xb") as file:
                    file.write(content)
                written.append(name)
            except FileExistsError:
                kept.append(name)
    except OSError as error:
        done = f"Copied so far: {', '.join(written)}." if written else "Nothing was written."
        raise KpiBackfillError(
            f"{error.filename or folder} can't be written ({error.strerror}). {done} Choose another folder.",
            code="notebooks_not_written",
        ) from None
    return Copied(folder, tuple(written), tuple(kept))


def _jupyter() -> str:
    """The command of the JupyterLab installed with this package: pipx and uv put only `kpibackfill` on PATH."""
    own, found = Path(sys.executable).with_name("jupyter"), shutil.which("jupyter")
    on_path = found is not None and Path(found).resolve() == own.resolve()
    return "jupyter" if on_path or not own.exists() else str(own)
