"""Reading the archive without a database: which runs there are, what one did, how two differ, where rows come from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

import kpibackfill as kb
from kpibackfill.archive import history
from kpibackfill.archive.diff import compare_receipts
from kpibackfill.archive.models import Receipt, read
from kpibackfill.archive.provenance import notebook_path
from kpibackfill.archive.run_record import open_record
from kpibackfill.archive.runs import list_runs, resolve_run
from kpibackfill.errors import Refused
from kpibackfill.numbers import float4
from tests.archives import FEW, listed_runs, recorded_changes
from tests.databases import connect, on
from tests.workbench import Workbench, refusal

facts = sa.table("ms_fact_kpi_snapshot", sa.column("snapshot_id"), sa.column("kpi_id"), sa.column("metric_value"))
NPS = facts.c.kpi_id == "education_nps"
RATE = "workshop_participants_bipoc"


def compared(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two receipts, as JSON has them, compared as ``diff --json`` prints it."""
    first, second = (read(Receipt, json.dumps(receipt)) for receipt in (one, other))
    found: dict[str, Any] = json.loads(json.dumps(compare_receipts(first, second).as_json()))
    return found


@pytest.fixture
def here(made_archive: Workbench, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    monkeypatch.setenv("KPIBACKFILL_CONFIG", str(made_archive.folder / "kpibackfill.toml"))
    return made_archive


def test_runs_are_listed_with_their_states_and_filtered(here: Workbench) -> None:
    runs = listed_runs(here.config.runs_dir)
    assert [run["state"] for run in runs] == ["dry_run", "applied", "dry_run"]
    assert [run["notebook"] for run in runs] == ["as shipped", "as shipped", "not archived"]
    dry, applied, last = (run["run_id"] for run in runs)
    assert runs[1]["written"] == runs[1]["planned"] == runs[0]["planned"] > 0 == runs[0]["written"]
    assert runs[1]["reason"] == "the yearly backfill"

    def ids(**wanted: Any) -> list[str]:
        return [run["run_id"] for run in listed_runs(here.config.runs_dir, **wanted)]

    assert ids(state="applied") == [applied]
    assert ids(year=2019) == [dry, applied, last]
    assert ids(year=2020) == [dry, applied]
    assert ids(target="elsewhere") == []
    assert ids(kpi="education_nps", state="dry_run") == [dry, last]
    assert ids(kpi="workshop_attendees") == []
    with pytest.raises(Refused, match="There is no state 'done'"):
        ids(state="done")


def test_a_run_cut_off_while_writing_is_unsettled_and_one_that_waits_is_planned(
    runs_dir: Path, here: Workbench
) -> None:
    run = here.begin(record=True)
    assert run.record is not None
    try:
        assert listed_runs(here.config.runs_dir)[-1]["state"] == "planned"
        run.record.update(state="applying")
        assert listed_runs(here.config.runs_dir, state="unsettled")[-1]["run_id"] == run.run_id
        assert "unsettled" in here.command("runs").stdout
        assert f"kpibackfill settle {run.run_id}" in here.command("show", str(run.run_id)).stdout
    finally:
        shutil.rmtree(here.config.runs_dir)
        shutil.copytree(runs_dir, here.config.runs_dir)


def test_a_shortened_id_is_understood_when_one_run_is_meant(here: Workbench) -> None:
    runs_dir = here.config.runs_dir
    ids = [run["run_id"] for run in listed_runs(runs_dir)]
    assert resolve_run(runs_dir, "latest") == ids[-1]
    assert [resolve_run(runs_dir, run_id[-6:]) for run_id in ids] == ids
    assert resolve_run(runs_dir, ids[0]) == ids[0]
    with pytest.raises(Refused, match=r"matches 3 runs"):
        resolve_run(runs_dir, "20")
    for nothing in ("", "zzz", "../" + ids[0]):
        with pytest.raises(Refused, match="There is no run"):
            resolve_run(runs_dir, nothing)


def test_history_lists_every_value_written_with_its_run_and_reason(here: Workbench) -> None:
    changes = recorded_changes(here.config.runs_dir)
    runs = listed_runs(here.config.runs_dir)
    plan = json.loads((here.config.runs_dir / runs[1]["run_id"] / "plan.json").read_bytes())
    assert {(c["snapshot_id"], c["kpi_id"], c["action"], c["after"]) for c in changes} == {
        (row["snapshot_id"], row["kpi_id"], row["action"], row["value_f4"]) for row in plan["rows"]
    }
    assert {c["run_id"] for c in changes} == {runs[1]["run_id"]}
    assert {c["reason"] for c in changes} == {"the yearly backfill"}
    for change, row in zip(changes, plan["rows"], strict=True):
        assert change["before"] == (row["before"] and float4(row["before"]["metric_value"]))
        assert change["basis"] == row["basis"]
    last = history.last_recorded(here.config.runs_dir, "test")
    assert last.keys() == {(row["snapshot_id"], row["kpi_id"]) for row in plan["rows"]}
    assert history.last_recorded(here.config.runs_dir, "another") == {}


def test_the_values_stored_are_the_last_in_the_history(here: Workbench) -> None:
    with connect(here.database.url) as connection:
        stored = {(row.snapshot_id, row.kpi_id): row.metric_value for row in connection.execute(sa.select(facts))}
    for key, change in history.last_recorded(here.config.runs_dir, "test").items():
        assert stored[key] == pytest.approx(change.after, rel=1e-7)


def test_every_command_reads_without_the_database(here: Workbench) -> None:
    path = Path(str(sa.make_url(here.database.url).database))
    path.rename(path.with_suffix(".gone"))
    try:
        for arguments in (["runs"], ["show", "latest"], ["history"], ["diff", "latest", "latest"], ["verify"]):
            assert here.command(*arguments).exit_code == 0
            assert json.loads(here.command(*arguments, "--json").stdout)
    finally:
        path.with_suffix(".gone").rename(path)


def test_show_prints_findings_and_provenance(here: Workbench) -> None:
    applied = listed_runs(here.config.runs_dir, state="applied")[0]
    text = here.command("show", applied["run_id"]).stdout
    assert text.startswith(f"{applied['run_id']}: applied\n")
    for expected in ("the yearly backfill", "as shipped", applied["fingerprint"], "education_nps", "sqlite:///"):
        assert expected in text
    document = json.loads(here.command("show", applied["run_id"], "--json").stdout)
    sums = (here.config.runs_dir / applied["run_id"] / "SHA256SUMS").read_text()
    assert sums == "".join(f"{digest}  {name}\n" for name, digest in document["files"].items())
    assert [event["event"] for event in document["events"]] == ["begun", "closed", "archived"]
    query = document["receipt"]["kpis"][0]["queries"][0]
    assert query["sql"].startswith("SELECT")
    assert len(query["fingerprint"]) == 64


@on("sqlite")
def test_diff_distinguishes_changed_data_from_a_changed_stored_row(bench: Workbench) -> None:
    first = bench.finish(**FEW)
    nps = [row for row in first["rows"] if row["kpi_id"] == "education_nps"]
    changed = next(row for row in nps if row["stored"] is not None and row["computed"] is not None)
    with connect(bench.database.url) as connection:
        answered = sa.table("webform_submission_data", sa.column("name"), sa.column("value"))
        recommend = answered.c.name == bench.config.site.recommend_field
        connection.execute(sa.update(answered).where(recommend, answered.c.value == "10").values(value="0"))
        one = (facts.c.snapshot_id == changed["snapshot_id"]) & NPS
        connection.execute(sa.update(facts).where(one).values(metric_value=12.5))
    second = bench.finish(**FEW)
    found = compared(first, second)
    assert found["parameters"] == found["settings"] == found["packages"] == {}
    assert found["code"]["same"] is True
    assert found["kpis"]["education_nps"]["result"] == "other"
    assert found["kpis"]["total_new_member_signups"]["result"] == "same"
    whys = {(row["snapshot_id"], row["kpi_id"]): row["why"] for row in found["rows"]}
    assert whys.pop((changed["snapshot_id"], "education_nps")) == "source data and the stored row"
    assert set(whys.values()) == {"source data"}
    assert {kpi_id for _, kpi_id in whys} == {"education_nps"}


@on("sqlite")
def test_diff_distinguishes_a_changed_setting_from_changed_data(bench: Workbench) -> None:
    first = bench.finish(kpis="workshop_attendees")
    bench.configure(site={"attendance_label": "Program"})
    second = bench.finish(kpis="workshop_attendees")
    found = compared(first, second)
    assert found["settings"] == {"attendance_label": ["Ticketed Workshop", "Program"]}
    assert found["kpis"]["workshop_attendees"]["bound_values"] == "other"
    assert found["kpis"]["workshop_attendees"]["result"] == "unknown"
    assert {row["why"] for row in found["rows"]} == {"parameters or settings"}
    text = bench.command("diff", first["run_id"], second["run_id"]).stdout
    assert "parameters or settings" in text


def test_diff_names_a_changed_definition_and_admits_what_it_cannot_tell(here: Workbench) -> None:
    one = kb.show("latest")["receipt"]
    other = json.loads(json.dumps(one))
    other["rows"][0]["computed"] = 41.5
    kpi_id = other["rows"][0]["kpi_id"]
    one_entry, entry = (entry for run in (one, other) for entry in run["kpis"] if entry["kpi_id"] == kpi_id)

    def why() -> str:
        (row,) = compared(one, other)["rows"]
        return str(row["why"])

    assert why() == "cannot tell"
    other["code"]["sources_sha256"] = "0" * 64
    assert why() == "code"
    entry["source_sha256"] = "0" * 64
    assert why() == "definition"
    entry["queries"][0]["fingerprint"] = "0" * 64
    assert why() == "source data and definition"
    entry["source_sha256"] = one_entry["source_sha256"]
    assert why() == "source data and code"
    entry["queries"][0]["sql"] += " LIMIT 1"
    assert why() == "cannot tell"  # another query may return something else from the same data
    other["code"]["sources_sha256"] = one["code"]["sources_sha256"]
    other["site"]["workshop_word"] = "course"
    assert why() == "parameters or settings"


@pytest.mark.parametrize("content", ["[]", "{}", "{", '{"run_id": 1}', "[" * 100_000])
def test_a_receipt_or_a_settlement_that_is_not_one_is_reported_in_one_line(
    made_archive: Workbench, runs_dir: Path, content: str
) -> None:
    configuration = runs_dir.parent / "kpibackfill.toml"
    shutil.copyfile(made_archive.folder / "kpibackfill.toml", configuration)
    (run,) = runs_dir.glob("*apply*")

    def command(*arguments: str) -> Any:
        return made_archive.command("--config", str(configuration), *arguments)

    problems = {
        "settlement.json": f"{run / 'settlement.json'} can't be read",
        "receipt.json": f"{run.name}/receipt.json was altered since it was archived",
    }
    for name, problem in problems.items():
        (run / name).write_text(content)
        for arguments in (["show", run.name], ["revert", run.name]):
            message = refusal(command(*arguments))
            assert problem in message
            assert "Run `kpibackfill verify` for details." in message
        assert command("runs").exit_code == command("history").exit_code == 0


def test_an_altered_receipt_is_reported_as_such_wherever_that_matters(made_archive: Workbench, runs_dir: Path) -> None:
    configuration = runs_dir.parent / "kpibackfill.toml"
    shutil.copyfile(made_archive.folder / "kpibackfill.toml", configuration)
    dry, _, applied = (run for kind in ("*dry-run*", "*apply*") for run in sorted(runs_dir.glob(kind)))
    for run, name, command in ((dry, "operator", "show"), (dry, "review", "review"), (applied, "plan", "revert")):
        receipt = json.loads((run / "receipt.json").read_bytes())
        del receipt[name]
        (run / "receipt.json").write_text(json.dumps(receipt))
        message = refusal(made_archive.command("--config", str(configuration), command, run.name))
        assert "receipt.json was altered since it was archived" in message


def test_an_altered_receipt_is_shown_as_such_and_compared_with_none(
    made_archive: Workbench, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = runs_dir.parent / "kpibackfill.toml"
    shutil.copyfile(made_archive.folder / "kpibackfill.toml", configuration)
    monkeypatch.setenv("KPIBACKFILL_CONFIG", str(configuration))
    (run,) = runs_dir.glob("*apply*")
    content = (run / "receipt.json").read_bytes()
    (run / "receipt.json").write_bytes(content.replace(b"the yearly", b"the early", 1))

    def command(*arguments: str) -> Any:
        return made_archive.command("--config", str(configuration), *arguments)

    for text in (command("show", run.name).stdout, repr(kb.show(run.name))):
        assert text.splitlines()[1].startswith(f"{run.name}/receipt.json was altered since it was archived: what is")
    assert json.loads(command("show", run.name, "--json").stdout)["altered"]
    assert "was altered since it was archived" in refusal(command("diff", run.name, "latest"))
    with pytest.raises(Refused, match="was altered"):
        kb.diff(run.name, "latest")


@on("sqlite")
def test_the_value_before_a_rate_of_too_few_people_is_withheld_with_it(bench: Workbench) -> None:
    with connect(bench.database.url) as connection:  # only four people are left who answered
        answers = sa.table("civicrm_value_demographics_15", sa.column("entity_id"), sa.column("custom_46"))
        keep = connection.scalars(sa.select(answers.c.entity_id).order_by(answers.c.entity_id)).all()[:4]
        bench.finish(kpis=RATE, apply=True)
        connection.execute(sa.update(answers).where(answers.c.entity_id.not_in(keep)).values(custom_46=None))
    few = {row["snapshot_id"] for row in bench.finish(kpis=RATE)["rows"] if row["basis"] in range(1, 5)}
    with connect(bench.database.url) as connection:
        of_few = sa.and_(facts.c.kpi_id == RATE, facts.c.snapshot_id.in_(few))
        assert connection.execute(sa.update(facts).where(of_few).values(metric_value=0.5123)).rowcount
    dry = bench.finish(kpis=RATE)
    applied = bench.finish(kpis=RATE, apply=True)
    later = bench.finish(kpis=RATE)
    shown = [
        history.published_change(change)
        for change in history.changes(bench.config.runs_dir)
        if change.run_id == applied["run_id"] and change.snapshot_id in few
    ]
    assert {after for _, after in shown} == {"< 5"}
    assert {before for before, _ in shown} == {"< 5"}
    texts = (
        bench.command("history").stdout,
        bench.command("show", applied["run_id"]).stdout,
        bench.command("diff", dry["run_id"], later["run_id"]).stdout,
        (bench.config.runs_dir / "index.html").read_text(),
        kb.history_table(kb.history())._repr_html_(),
    )
    for text in texts:
        assert "51.2 %" not in text
    differing = kb.diff(dry["run_id"], later["run_id"])
    values = differing.loc[differing["about"] == "stored", ["one", "other"]].stack().dropna()
    assert set(values) == {"< 5"}


def test_the_same_in_a_notebook_as_dataframes(here: Workbench) -> None:
    runs = kb.runs(target="test")
    assert runs["run_id"].tolist() == [run["run_id"] for run in listed_runs(here.config.runs_dir)]
    assert str(runs["started_at"].dtype).endswith("UTC]")
    frame = kb.history(kpi="education_nps", target="test")
    assert set(frame["kpi_id"]) == {"education_nps"}
    assert frame["value"].notna().all()
    assert isinstance(frame["basis"].dtype, pd.Int64Dtype)
    assert frame.attrs["kpis"]["education_nps"]["unit"] == "points"
    assert repr(kb.plot_history(frame))
    assert "the yearly backfill" in repr(kb.show(listed_runs(here.config.runs_dir, state="applied")[0]["run_id"]))
    changes = kb.diff(runs["run_id"][0], runs["run_id"][1])
    assert ("parameter", "apply", False, True) in set(
        changes[["about", "name", "one", "other"]].itertuples(index=False, name=None)
    )
    for misspelt in (kb.runs, kb.history):
        with pytest.raises(Refused, match=r"There is no target 'tset' in .* the targets are: test\."):
            misspelt(target="tset")
    assert kb.verify().findings == ()


@pytest.mark.parametrize("kpi", ["education_nps", "workshop_attendees"], ids=["with a history", "without"])
def test_the_history_notebook_runs_on_an_archive(here: Workbench, kpi: str) -> None:
    notebook = json.loads(notebook_path("kpi_history.ipynb").read_bytes())
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert sources[0].startswith("# Parameters")
    names: dict[str, Any] = {}
    for source in [sources[0], f"target, kpi = 'test', {kpi!r}", *sources[1:]]:
        exec(compile(source, "cell", "exec"), names)
    assert names["history"].empty == (kpi == "workshop_attendees")
    table = kb.history_table(names["history"])
    assert ("No run has written a matching row." in table._repr_html_()) == names["history"].empty
    for word in () if names["history"].empty else ("the yearly backfill", "Education NPS"):
        assert word in table._repr_html_()
    runs = kb.runs_table(kb.runs(target="test"))._repr_html_()
    assert "dry run" in runs
    assert "NaN" not in runs
    assert kb.runs_table(kb.runs(year=1999))._repr_html_().count("No runs match.") == 1


def test_what_comes_from_the_archive_cannot_steer_a_terminal(here: Workbench, runs_dir: Path) -> None:
    from kpibackfill.reporting.terminal import diff_text, runs_text

    run = list_runs(runs_dir)[0].changed(operator="\x1b[31mred\x07", reason="one\ntwo \u202egnol \x9b1m")
    text = runs_text([run])
    assert "\\x1b[31mred\\x07" in text
    assert not set(text) & set("\x1b\x07\x9b\u202e")
    assert len(text.splitlines()) == 2
    receipt = open_record(runs_dir, run.run_id).receipt
    assert "\x1b" not in diff_text(compare_receipts(receipt, receipt).changed(runs=("\x1b[2J", "b")))
    refused = here.command("show", "\x1b[2J")
    assert "\x1b[2J" not in refusal(refused)


@pytest.mark.parametrize("arguments", [["runs"], ["history"], ["show", "latest"], ["verify"]])
def test_an_archive_command_imports_nothing_heavy(here: Workbench, arguments: list[str]) -> None:
    import subprocess
    import sys

    heavy = "pandas", "sqlalchemy", "papermill", "matplotlib", "jinja2"
    source = (
        "import sys; from kpibackfill.cli import main; main(sys.argv[1:], standalone_mode=False);"
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", source, *arguments], capture_output=True, text=True, cwd=here.folder)
    assert ended.stderr.strip() == "[]", ended.stderr
