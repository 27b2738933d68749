"""The command line: what it prints and its exit statuses, above all for refusals."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

import kpibackfill as kb
from kpibackfill.cli import main
from kpibackfill.parameters import DEFAULTS
from tests.databases import dump, on
from tests.workbench import Workbench, error_of, refusal

ROOT = Path(__file__).parents[1]
# Importing these takes longer than a person waits for --help.
HEAVY = ("pandas", "numpy", "sqlalchemy", "papermill", "matplotlib", "nbclient", "IPython", "jinja2")


@pytest.fixture(autouse=True)
def no_configuration_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier tests may have left the configuration of an archive that they share."""
    monkeypatch.delenv("KPIBACKFILL_CONFIG", raising=False)


def test_the_options_of_run_are_the_parameters_of_the_notebook() -> None:
    run = main.commands["run"]
    parent = click.Context(main, **main.context_settings)
    assert run.make_context("run", [], parent=parent).params == {**DEFAULTS, "exit_code": False}
    options = {option.name: option.opts for option in run.params}
    assert all(options[name] == [f"--{name.replace('_', '-')}"] for name in DEFAULTS)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["runs"], ["runs", "--json"], ["--version"], ["kpis", "--help"]]
)
def test_help_and_the_archive_load_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "kpibackfill.toml").write_text('[targets.demo]\nstore = "sqlite:///demo.sqlite"\n')
    program = (
        "import sys\nfrom kpibackfill.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as end: assert not end.code, end.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.stderr.splitlines()[-1] == "[]", ended.stderr


WRONG_PARAMETERS: list[tuple[list[str], str, str]] = [
    (["--from-year", "abc"], "usage", "'abc' is not a valid integer"),
    (["--from-year", "99999"], "parameter", "four digits"),
    (["--from-year", "-1"], "parameter", "four digits"),
    (["--from-year", "0"], "parameter", "four digits"),
    (["--from-year", "2024", "--to-year", "20255"], "parameter", "to_year"),
    (["--to-year", "2024"], "parameter", "to_year was given without from_year"),
    (["--target", "nowhere"], "unknown_target", "It has: test"),
    (["--kpis", "education_npss"], "unknown_kpi", "'education_nps'"),
    (["--kpis", "entirely different"], "unknown_kpi", "kpibackfill kpis"),
    (["--snapshot-types", "fortnightly"], "parameter", "'fortnightly'"),
    (["--snapshot-types", " , "], "parameter", "snapshot_types is empty"),
    (["--as-of", "yesterday"], "parameter", "as_of must be an instant"),
    (["--as-of", "0000-01-01"], "parameter", "as_of must be an instant"),
    (["--reason", "one\ntwo"], "parameter", "one line"),
    (["--reason", "\u202eeno"], "parameter", "control characters"),
    (["--operator", "an\u200bn"], "parameter", "control characters"),
    (["--as-of", "0999-12-31"], "parameter", "in the years 1001 to 9998, not 0999-12-31"),
    (["--target", "x" * 5000], "unknown_target", "It has: test"),
    (["--kpis", "x" * 1500], "unknown_kpi", "kpibackfill kpis"),
    (["--apply=true"], "usage", "does not take a value"),
    (["--aply"], "usage", "--apply"),
    (["--frm-year", "2024"], "usage", "--from-year"),
    (["2024"], "usage", "unexpected extra argument"),
]


@on("sqlite")
@pytest.mark.parametrize(("arguments", "code", "words"), WRONG_PARAMETERS)
def test_wrong_parameters_are_refused_before_anything_is_read(
    bench: Workbench, arguments: list[str], code: str, words: str
) -> None:
    before = dump(bench.database)
    target = [] if "--target" in arguments else ["--target", "test"]
    plain = refusal(bench.command("run", *target, *arguments))
    assert len(plain) < 1000
    assert words in plain
    assert "othing was read or written" in plain
    as_json = bench.command("run", *target, *arguments, "--json")
    refusal(as_json)
    error = error_of(as_json)
    assert (error["code"], words in error["message"]) == (code, True)
    assert json.loads(as_json.stdout) == {"run_id": None, "state": "refused", "error": error}
    assert not bench.runs
    assert dump(bench.database) == before


@pytest.mark.parametrize(
    "arguments", [["--conf", "x", "run", "--json"], ["runn", "--json"], ["run", "--json", "--to-year"]]
)
def test_a_usage_error_is_reported_like_any_refusal(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(main, arguments)
    refusal(ended)
    assert error_of(ended)["code"] == "usage"


@on("sqlite")
@pytest.mark.parametrize(
    ("command", "option"),
    [
        *(("run", option) for option in ("--approved-plan", "--decisions", "--revert-of", "--kpis")),
        *(("revert RUN", option) for option in ("--approved-plan", "--decisions")),
        ("verify", "--head"),
    ],
)
@pytest.mark.parametrize("empty", ["", " "])
def test_an_option_left_empty_by_an_unset_variable_is_refused(
    command: str, option: str, empty: str, bench: Workbench
) -> None:
    run_id = "20260101T000000Z-test-2020-apply-abc123"
    ended = bench.command(*command.replace("RUN", run_id).split(), option, empty)
    assert ended.exit_code == 2
    assert ended.stderr.count("\n") == 1
    assert f"'{option}': it is empty" in ended.stderr
    assert "give it a value or leave it out. Nothing was read or written" in ended.stderr
    assert not bench.runs


@on("sqlite")
@pytest.mark.parametrize("command", ["approve RUN --note why", "settle RUN", "revert RUN", "replay RUN"])
@pytest.mark.parametrize("part", ["latest", "20260101"])
def test_commands_that_write_need_the_full_run_id(command: str, part: str, bench: Workbench) -> None:
    error = refusal(bench.command(*command.replace("RUN", part).split()))
    assert f"'{part}' is not a full run id, which is required here;" in error
    assert "nothing was written. `kpibackfill runs` lists them." in error


CONFIGURATIONS: dict[str, tuple[str, str]] = {
    "unknown key": ('colour = "red"\n[targets.test]\nstore = "sqlite:///x"\n', "unknown key 'colour'"),
    "unknown key of a target": ('[targets.test]\nstore = "sqlite:///x"\nstor = 1\n', "unknown key 'targets.test.stor'"),
    "unknown key of the site": (
        '[targets.test]\nstore = "sqlite:///x"\n[site]\nwebform = "x"\n',
        "unknown key 'site.webform'",
    ),
    "no store": ("[targets.test]\n", "targets.test.store"),
    "no targets": ('runs = "runs"\n', "targets"),
    "not TOML": ("[targets.test\n", "not valid TOML"),
    "no zone": ('[targets.test]\nstore = "sqlite:///x"\ntimezone = "Mars"\n', "targets.test.timezone: 'Mars'"),
    "no URL": ('[targets.test]\nstore = "hunter2"\n', "targets.test.store is not a database URL"),
    "no such driver": ('[targets.test]\nstore = "oracle9://h/d"\n', "there is no database driver 'oracle9'"),
    "driver not installed": ('[targets.test]\nstore = "mssql+pymssql://u@h/d"\n', "is not installed (pymssql)"),
    "missing variable": (
        '[targets.test]\nstore = "mysql+pymysql://u:${NOWHERE_SET}@h/d"\n',
        "targets.test.store needs the environment variable NOWHERE_SET",
    ),
    "no number for a port": ('[targets.test]\nstore = "mysql+pymysql://u@h:${WORD}/d"\n', "is not a database URL"),
    "a module that is not there": (
        '[targets.test]\nstore = "sqlite:///x"\n[site]\nkpi_modules = ["no_such_module"]\n',
        "'no_such_module' could not be imported",
    ),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_an_invalid_configuration_is_refused_naming_the_key(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, words = CONFIGURATIONS[name]
    (tmp_path / "kpibackfill.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORD", "hunter2")
    ended = CliRunner().invoke(main, ["run", "--target", "test", "--json"])
    assert words in refusal(ended)
    assert "hunter2" not in ended.output
    assert words in error_of(ended)["message"]
    assert not (tmp_path / "runs").exists()


def test_without_a_configuration_the_error_says_how_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KPIBACKFILL_CONFIG", raising=False)
    assert "kpibackfill notebooks DIR" in refusal(CliRunner().invoke(main, ["run"]))
    assert "can't be read" in refusal(CliRunner().invoke(main, ["--config", "nowhere.toml", "run"]))


def completed(*arguments: str) -> list[str]:
    """What the shell offers to complete the last argument."""
    shell = ShellComplete(main, {}, "kpibackfill", "_KPIBACKFILL_COMPLETE")
    return [item.value for item in shell.get_completions(list(arguments[:-1]), arguments[-1])]


@on("sqlite")
def test_the_shell_completes_targets_kpis_runs_and_states(bench: Workbench) -> None:
    run_id = bench.finish(kpis="education_nps")["run_id"]
    assert completed("run", "--target", "te") == ["test"]
    assert completed("explain", "education") == ["education_nps"]
    assert completed("run", "--kpis", "education_nps,total_n") == ["education_nps,total_new_member_signups"]
    assert completed("runs", "--state", "dry") == ["dry_run"]
    assert completed("show", "") == ["latest", run_id]
    assert completed("approve", "") == [run_id]  # approve needs the full id
    assert completed("run", "--approved-plan", run_id[:9]) == [run_id]


def test_completion_is_silent_without_a_valid_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for text in (None, "[targets.test", "[site]\nkpi_modules = ['no_such_module']\n[targets.t]\nstore='sqlite:///x'\n"):
        if text is not None:
            (tmp_path / "kpibackfill.toml").write_text(text)
        assert completed("show", "2") == []
        assert completed("explain", "education") == []
    assert capfd.readouterr() == ("", "")


def test_kpis_json_equals_list_kpis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kpibackfill.toml").write_text('[targets.demo]\nstore = "sqlite:///demo.sqlite"\n')
    monkeypatch.chdir(tmp_path)
    listed = kb.list_kpis()
    assert listed.to_dict("records") == json.loads(CliRunner().invoke(main, ["kpis", "--json"]).stdout)
    assert all(words in listed._repr_html_() for words in listed["description"].str.slice(-40))


def test_notebooks_says_how_to_open_them_even_if_jupyter_is_not_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = Path(sys.executable).parent

    def next_line(folder: str) -> str:
        return CliRunner().invoke(main, ["notebooks", folder]).output.splitlines()[-1]

    monkeypatch.setenv("PATH", str(own))
    assert next_line(".") == "Next: jupyter lab kpi_backfill.ipynb"
    assert next_line("a b") == "Next: cd 'a b' && jupyter lab kpi_backfill.ipynb"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert next_line(".") == f"Next: {own}/jupyter lab kpi_backfill.ipynb"
    # The demo target there is the repository's.
    ours, copied = (tomllib.loads((place / "kpibackfill.toml").read_text()) for place in (ROOT, tmp_path))
    assert copied["targets"]["demo"] == ours["targets"]["demo"]


@pytest.mark.parametrize(("no_color", "colored"), [("", True), ("1", False)])
def test_no_color_is_respected(no_color: str, colored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kpibackfill.toml").write_text('[targets.demo]\nstore = "sqlite:///demo.sqlite"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", no_color)
    result = CliRunner().invoke(main, ["kpis"], color=True)
    assert ("\x1b[" in result.output) == colored


@pytest.mark.parametrize(
    "lines",
    [
        "raise RuntimeError('first line\\nsecond line')",
        "raise SystemExit(0)",
        "def (:",
        "@kb.kpi('A B', label='', unit='count', family='', description='', sources=[])\ndef own(*_): ...",
        "@kb.kpi('x' * 65, label='', unit='count', family='', description='', sources=[])\ndef own(*_): ...",
        "@kb.kpi(5, label='', unit='count', family='', description='', sources=[])\ndef own(*_): ...",
        "@kb.kpi('own', label=None, unit='count', family='', description='', sources=[])\ndef own(*_): ...",
        "@kb.kpi('own', label='', unit='count', family='', description='', sources='civicrm_event')\ndef own(*_): ...",
        "@kb.kpi('own', label='', unit='count', family='', description='', sources=[5])\ndef own(*_): ...",
        "@kb.kpi('o', label='', unit='count', family='', description='', sources=[], cadences='annual')\ndef o(): ...",
        "@kb.kpi('own', label='', unit='bananas', family='', description='', sources=[])\ndef own(*_): ...",
    ],
)
def test_a_broken_site_module_is_refused_in_one_line(
    lines: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "unfit", raising=False)
    (tmp_path / "unfit.py").write_text(f"import kpibackfill as kb\nprint('noise')\n{lines}\n", encoding="utf-8")
    config = tmp_path / "kpibackfill.toml"
    config.write_text('[targets.test]\nstore="sqlite:///x"\n[site]\nkpi_modules=["unfit"]\n', encoding="utf-8")
    result = CliRunner().invoke(main, ["--config", str(config), "kpis", "--json"])
    assert result.exit_code == 2
    assert "nothing was read or written" in error_of(result)["message"]
    assert len(result.stderr.removeprefix("noise\n").strip().splitlines()) == 1


def test_a_site_module_that_prints_does_not_break_the_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "chatty.py").write_text("print('noise')\n", encoding="utf-8")
    config = tmp_path / "kpibackfill.toml"
    config.write_text('[targets.test]\nstore="sqlite:///x"\n[site]\nkpi_modules=["chatty"]\n', encoding="utf-8")
    result = CliRunner().invoke(main, ["--config", str(config), "kpis", "--json"])
    assert "education_nps" in {entry["kpi_id"] for entry in json.loads(result.stdout)}


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["--config", "~no-such-user/x.toml", "runs"], ""),
        (["run"], '[targets.demo]\nstore="sqlite:///x\\u0000y"'),
        (["run"], '[targets.demo]\nstore="sqlite:///x"\n[site]\nkpi_id_prefix="x\\u0000y"'),
        (["run", "--decisions", "~no-such-user/x.csv"], '[targets.demo]\nstore="sqlite:///x"'),
        (["run", "--from-year", "9" * 5000], '[targets.demo]\nstore="sqlite:///x"'),
        (["run", "--decisions", "/dev/full"], '[targets.demo]\nstore="sqlite:///x"'),
        (["run", "--decisions", "."], '[targets.demo]\nstore="sqlite:///x"'),
        (["run", "--as-of", "0999-01-01"], '[targets.demo]\nstore="sqlite:///x"'),
        (["runs"], 'runs="\\u0000"\n[targets.demo]\nstore="sqlite:///x"'),
        (["runs"], 'runs=""\n[targets.demo]\nstore="sqlite:///x"'),
        (["demo", "--replace"], '[targets.demo]\nstore="sqlite:///:memory:"'),
        (["demo", "--replace"], '[targets.demo]\nstore="mysql+pymysql://u@127.0.0.1:1/d"'),
    ],
)
def test_odd_paths_and_numbers_are_refused_in_one_line(
    arguments: list[str], lines: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KPIBACKFILL_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kpibackfill.toml").write_text(lines, encoding="utf-8")
    error = refusal(CliRunner().invoke(main, arguments))
    assert "othing was" in error
    assert len(error) < 700


@pytest.mark.parametrize(
    ("arguments", "status"),
    [("runs", 2), ("kpis --json", 2), ("--help", 2), ("run --help", 2), ("--version", 2), ("show none --json", 2)],
)
@pytest.mark.parametrize("output", [">/dev/full", ">&-", "| true"])
def test_unwritable_output_is_reported_in_at_most_one_line(
    arguments: str, status: int, output: str, tmp_path: Path
) -> None:
    (tmp_path / "kpibackfill.toml").write_text('[targets.demo]\nstore="sqlite:///x"\n', encoding="utf-8")
    line = f'sleep 0.01; "$0" -m kpibackfill {arguments} 2>errors; echo $? >status'
    subprocess.run(["sh", "-c", f"({line}) {output}", sys.executable], cwd=tmp_path, check=False)
    errors = (tmp_path / "errors").read_text(encoding="utf-8").splitlines()
    refused = arguments.startswith("show")
    assert len(errors) == refused + (output == ">/dev/full"), errors
    # Nobody wants an output that was closed at the start.
    assert (tmp_path / "status").read_text() == f"{0 if output == '>&-' and not refused else status}\n"


def test_a_run_works_with_stderr_closed(tmp_path: Path) -> None:
    (tmp_path / "kpibackfill.toml").write_text('[targets.demo]\nstore="sqlite:///x"\n', encoding="utf-8")
    line = '"$0" -m kpibackfill run --from-year 1999 --json 2>&-'
    ended = subprocess.run(["sh", "-c", line, sys.executable], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["state"] == "dry_run"


@pytest.mark.parametrize("arguments", [["archive", "pipe"], ["--config", "pipe", "runs"], ["archive", "/dev/zero"]])
def test_pipes_and_devices_are_not_read(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "kpibackfill.toml").write_text('[targets.demo]\nstore="sqlite:///x"\n', encoding="utf-8")
    os.mkfifo(tmp_path / "pipe")
    command = [sys.executable, "-m", "kpibackfill", *arguments]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 2
    assert "regular file" in ended.stderr


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may read everything")
@pytest.mark.parametrize("command", ["runs", "verify", "history"])
def test_an_archive_of_another_account_is_reported_in_one_line(command: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # its parents are accessible to everyone, unlike tmp_path's
        config = Path(folder, "kpibackfill.toml")
        config.write_text('[targets.demo]\nstore="sqlite:///x"\n', encoding="utf-8")
        Path(folder).chmod(0o755)
        ledger = Path(folder, "runs", "ledger.jsonl")
        ledger.parent.mkdir()
        ledger.write_text("{}\n", encoding="utf-8")
        ledger.chmod(0o000)
        other = ["setpriv", "--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []
        code = "from kpibackfill.cli import main; main()"
        arguments = [*other, sys.executable, "-c", code, "--config", str(config), command, "--json"]
        ended = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd="/")
    if ended.returncode in (126, 127) or "ModuleNotFoundError" in ended.stderr:
        pytest.skip("another account can't reach this environment")
    assert ended.returncode == 2, ended.stderr
    assert "ledger.jsonl" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert json.loads(ended.stdout)["error"]["code"] == "rights"


def test_a_runs_folder_that_links_to_itself_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KPIBACKFILL_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kpibackfill.toml").write_text('[targets.demo]\nstore="sqlite:///x"\n', encoding="utf-8")
    (tmp_path / "runs").symlink_to("runs")
    assert "could not be written" in refusal(CliRunner().invoke(main, ["run"]))
