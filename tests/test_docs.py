"""What the documentation says is true: links, keys, defaults, commands, messages, JSON members and public names."""

from __future__ import annotations

import ast
import contextlib
import html
import inspect
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from pydantic import BaseModel

import kpibackfill as kb
from kpibackfill.cli import main
from kpibackfill.config import Config, DashboardPage, Site, Target
from kpibackfill.parameters import DEFAULTS
from tests import command_line
from tests.pages import (
    DOCS,
    PAGES,
    ROOT,
    SHELLS,
    anchors,
    blocks,
    code,
    commands,
    configure,
    links,
    prose,
    shown_commands,
    table,
    text_of,
)

NAMES = [path.name for path in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_and_picture_leads_somewhere(page: Path) -> None:
    for link in links(page.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_file(), link
        assert page.parent != DOCS or target.is_relative_to(DOCS), f"{link} leads outside the site"
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_is_closed_and_no_placeholder_is_left(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    fences = re.findall(r"(?m)^ *(`{3,})([^`\n]*)$", text)
    assert len(fences) % 2 == 0
    assert not any(language for _, language in fences[1::2]), "a block begins inside another one"
    assert re.findall(r"(?m)^[A-Z][A-Z _]+$|\b(?:TODO|TBD|FIXME)\b", prose(text)) == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_can_be_copied_and_is_valid_in_its_language(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8")):
        assert not re.search(r"(?m)^(\$|>>>) ", block.text), "a prompt would be copied too"
        if block.language == "python":
            ast.parse(block.text)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language in {*SHELLS, "bash"} - {""}:
            subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)


def test_every_page_is_in_the_navigation_and_on_the_start_page() -> None:
    settings = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    in_navigation = re.findall(r"[\w-]+\.md", json.dumps(settings["project"]["nav"]))
    pages = {path.name for path in DOCS.glob("*.md")}
    assert sorted(in_navigation) == sorted(pages)
    assert {link.partition("#")[0] for link in links(text_of("index.md"))} >= pages - {"index.md"}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_configuration_shown_is_one(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language == "toml":
            document = {"targets": {"demo": {"store": "sqlite:///demo.sqlite"}}, **tomllib.loads(block.text)}
            Config.model_validate(document)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_shown_is_understood(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for arguments in shown_commands(text):
        understood(arguments, whole=True)
    for span in code(prose(text)):
        if span.startswith("kpibackfill "):
            for arguments in commands(span):
                understood(arguments, whole=False)


def understood(arguments: list[str], *, whole: bool) -> None:
    """Parse a command line without executing it; in running text, values may be missing or placeholders."""
    name, *rest = arguments[2:] if arguments[0] == "--config" else arguments
    if name == "--help":
        return
    command = main.commands.get(name)
    assert command, f"there is no {name}"
    refused: tuple[type[click.UsageError], ...] = () if whole else (click.BadParameter,)
    with contextlib.suppress(*refused):
        command.make_context(name, rest, parent=click.Context(main, **main.context_settings))


def test_every_command_has_help_with_examples_and_is_on_a_page() -> None:
    shown = {arguments[0] for path in PAGES if path.name != "command-line.md" for arguments in mentioned(path)}
    for name, command in main.commands.items():
        assert command.help, name
        _, examples, lines = command.help.partition("Examples:\n")
        assert examples, f"{name} has no examples"
        for arguments in (found for line in lines.splitlines() for found in commands(line)):
            understood(arguments, whole=True)
        assert all(option.help for option in command.params if isinstance(option, click.Option)), name
        assert name in shown, f"no page shows {name}"


def mentioned(path: Path) -> Iterator[list[str]]:
    text = path.read_text(encoding="utf-8")
    yield from shown_commands(text)
    yield from (arguments for span in code(prose(text)) for arguments in commands(span))


def test_the_page_of_commands_is_their_help() -> None:
    assert command_line.PAGE.read_text(encoding="utf-8") == command_line.page(), "python -m tests.command_line"


@pytest.mark.parametrize("name", [name for name in kb.__all__ if inspect.isfunction(getattr(kb, name))])
def test_every_function_documents_each_parameter_and_what_it_returns(name: str) -> None:
    function = getattr(kb, name)
    documented = inspect.getdoc(function) or ""
    [listed] = re.findall(r"Parameters\n-+\n(.*?)(?:\n\n|\Z)", documented, re.DOTALL) or [""]
    named = {word for names in re.findall(r"(?m)^(\w[\w, ]*?)(?: : .*)?$", listed) for word in names.split(", ")}
    assert named == set(inspect.signature(function).parameters)
    assert re.search(r"(?m)^Returns\n-+\n\S", documented)


def test_every_public_name_is_on_its_page_and_built_with_its_signature(tmp_path: Path) -> None:
    assert sorted(re.findall(r"(?m)^::: kpibackfill\.(\w+)$", text_of("api.md"))) == kb.__all__
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    zensical = [str(Path(sys.executable).with_name("zensical")), "build", "--strict"]
    done = subprocess.run(zensical, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    built = html.unescape(re.sub(r"<[^>]+>", "", (tmp_path / "site" / "api" / "index.html").read_text("utf-8")))
    for name in kb.__all__:
        shown = built.partition(f"\n{name}(")[2].partition("\n\n")[0]
        assert set(inspect.signature(getattr(kb, name)).parameters) <= set(re.findall(r"\w+", shown)), name


def test_the_architecture_lists_the_layers_that_lint_checks() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    rows = [" | ".join(code(names)) for names, _ in table(text_of("architecture.md"), "Packages and modules")]
    assert ["__main__", *rows] == layers


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_works_for_each_shell_on_the_page(shell: str) -> None:
    variable = {"_KPIBACKFILL_COMPLETE": f"{shell}_source"}
    assert f"_KPIBACKFILL_COMPLETE={shell}_source kpibackfill" in text_of("command-line.md")
    done = CliRunner().invoke(main, [], prog_name="kpibackfill", env=variable)
    assert "_kpibackfill_completion" in done.output


def test_every_parameter_is_on_its_page_with_its_default() -> None:
    rows = {code(name)[0]: ast.literal_eval(code(default)[0]) for name, default, _ in table(text_of("parameters.md"))}
    assert list(rows.items()) == list(DEFAULTS.items())


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("At the top", Config),
        ("In `[targets.NAME]`", Target),
        ("In `[site]`", Site),
        ("In `[site.dashboard]`", DashboardPage),
    ],
)
def test_every_key_is_on_its_page_with_its_default(heading: str, model: type[Any]) -> None:
    rows = {code(key)[0]: default for key, default, _ in table(text_of("configuration.md"), heading)}
    assert list(rows) == list(model.model_fields)
    for key, field in model.model_fields.items():
        if field.is_required():
            assert rows[key] == "required"
        elif code(rows[key]):
            shown = tomllib.loads(f"default = {code(rows[key])[0]}")["default"]
            default = field.default.model_dump() if isinstance(field.default, BaseModel) else field.default
            assert (tuple(shown) if isinstance(shown, list) else shown) == default, key
        else:
            assert field.default in (None, Site(), DashboardPage()), key


def test_every_error_code_is_in_troubleshooting_with_words_of_its_message() -> None:
    page = text_of("troubleshooting.md")
    rows = list(re.findall(r"(?m)^\| (`.+?) \| (.+?) \| .+\|$", page))
    codes, texts = {"usage", "failed"}, set[str]()
    for path in (ROOT / "kpibackfill").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant):
                codes.add(str(node.value.value))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
    assert {name for cell, _ in rows for name in code(cell)} == codes
    for _, cell in rows:
        for words in re.findall("“([^”]+)”", cell):
            assert any(words in text for text in texts), words


def test_every_member_of_the_json_documents_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KPIBACKFILL_CONFIG", raising=False)
    configure(tmp_path, "[targets.demo]\nstore = ''\n")
    promised = {code(first)[0].split()[1]: set(code(members)) for first, members in table_of_documents()}
    assert set(promised) == set(main.commands)
    dry_run = json_of("run", "--from-year", "2023")["run_id"]
    printed = {
        name: json_of(*arguments)
        for name, *arguments in (
            ("demo", "demo"),
            ("kpis", "kpis"),
            ("check", "check"),
            ("dashboard", "dashboard"),
            ("run", "run", "--from-year", "2024", "--apply"),
            ("runs", "runs"),
            ("show", "show", "latest"),
            ("diff", "diff", "latest", "latest"),
            ("history", "history"),
            ("verify", "verify"),
            ("review", "review", dry_run),
            ("approve", "approve", dry_run, "--note", "looked at"),
            ("explain", "explain", "education_nps", "--year", "2024"),
            ("notebooks", "notebooks", "copied"),
        )
    }
    for name, document in printed.items():
        members = set(document[0] if isinstance(document, list) else document)
        wanted = promised[name] - {"runs"} | promised["runs"] if name == "show" else promised[name]
        assert wanted <= members, f"{name}: {wanted - members}"


def table_of_documents() -> list[list[str]]:
    return table(text_of("json.md"), "What each command prints")


def json_of(*arguments: str) -> Any:
    done = CliRunner().invoke(main, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)
