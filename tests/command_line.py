"""Write the help of every command into docs/command-line.md: ``python -m tests.command_line``."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from kpibackfill.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "command-line.md"
MARK = "<!-- Below: written by `python -m tests.command_line`. -->\n"
WIDTH = 92


def help_of(*command: str) -> str:
    """What ``kpibackfill COMMAND --help`` prints on a terminal of 92 columns."""
    done = CliRunner().invoke(main, [*command, "--help"], prog_name="kpibackfill", terminal_width=WIDTH)
    assert done.exit_code == 0, done.output
    return done.output


def page() -> str:
    """The page: what is written up to the mark, then the help of each command."""
    written, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    assert mark, f"{PAGE} lacks the line {MARK}"
    helps = {"kpibackfill": help_of()} | {f"kpibackfill {name}": help_of(name) for name in main.commands}
    return written + mark + "".join(f"\n## {name}\n\n```text\n{text}```\n" for name, text in helps.items())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
