"""`kpibackfill dashboard`: what is on the page, what is stored in the rows that show, and what is computed."""

from __future__ import annotations

import json
import sys
from datetime import date
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

import kpibackfill as kb
from kpibackfill.database.php_serialize import dumps
from kpibackfill.kpis import registry
from kpibackfill.numbers import float4
from tests.databases import add_payload, all_layouts, change, dump, on, put_payload
from tests.page.reader import cells
from tests.workbench import Workbench, refusal

AS_OF = "2026-11-22T12:00:00"
AT = 1_795_348_800
"""The same instant."""
ATTENDEES, NPS, SIGNUPS = "workshop_attendees", "education_nps", "total_new_member_signups"


def look(bench: Workbench, **asked: Any) -> pd.DataFrame:
    return kb.dashboard("test", as_of=AS_OF, **asked).frame().set_index(["kpi_id", "year"])


def command(bench: Workbench, *options: str, status: int = 0) -> str:
    done = bench.command("dashboard", "--target", "test", "--as-of", AS_OF, *options)
    assert done.exit_code == status, done.output
    return done.stdout


def stored_values(bench: Workbench, kpi_id: str) -> dict[int, float]:
    frame = look(bench, kpis=kpi_id)["stored"].dropna()
    return {year: value for (_, year), value in frame.items()}


@all_layouts
def test_stored_is_what_the_page_reads_and_computed_what_a_run_computes(bench: Workbench) -> None:
    bench.configure(site={"kpi_id_prefix": "auto"})
    drift = bench.steps(include_risky=True, to_year=2026).drift
    bench.finish(apply=True)
    before = dump(bench.database)
    frame = look(bench, computed=True, include_risky=True)
    assert dump(bench.database) == before
    assert len(bench.runs) == 1
    ids = list(registry.load())
    expected = cells(bench.database, [f"kpi_{kpi_id}" for kpi_id in ids], date(2026, 11, 22))
    stored = frame["stored"].dropna()
    live = frame["page_source"] == "live"
    assert {(f"kpi_{kpi_id}", year): float4(value) for (kpi_id, year), value in stored[~live].items()} == {
        key: value for key, value in expected.items() if value != 1e6
    }
    computed = {(row.snapshot_id, row.kpi_id): row.computed for row in drift.itertuples()}
    shown = frame[frame["snapshot_id"].notna()]
    assert len(shown) > 8
    for (kpi_id, _), row in shown.iterrows():
        assert row["computed"] == computed[row["snapshot_id"], kpi_id]
    assert frame["agrees"].isna().all()
    assert "The dashboard stores no page yet" in command(bench, "--exit-code")


def test_the_page_is_compared_with_the_rows_and_the_next_step_is_on_the_screen(bench: Workbench) -> None:
    bench.finish(apply=True, kpis=ATTENDEES)
    values = stored_values(bench, ATTENDEES)
    shown: dict[str, Any] = {"computed_at": AT - 3600, "expires_at": AT + 5 * 3600}
    add_payload(bench.database, **shown, education={ATTENDEES: values}, overview={ATTENDEES: values})
    assert look(bench, kpis=ATTENDEES).loc[ATTENDEES]["agrees"].dropna().all()
    said = command(bench, "--exit-code", "--kpis", ATTENDEES)
    assert said.startswith("The page shows the stored rows. education, overview: computed 60 minutes ago.\n")
    assert "≠" not in said

    add_payload(bench.database, **shown, education={ATTENDEES: values | {2024: 7.0}})
    row = look(bench, computed=True).loc[ATTENDEES, 2024]
    assert (row["page"], row["page_source"], row["section"]) == (7.0, "actual", "education")
    assert (row["stored"], row["computed"], row["snapshot_id"]) == (values[2024], values[2024], 283)
    assert (row["agrees"], row["remark"]) == (False, "education is behind")
    said = command(bench, "--exit-code", status=1)
    assert "other numbers than the rows in 1 cell; cron brings the new ones in about 5 hours." in said
    first = said.splitlines()[3]
    assert first.split() == [
        "≠",
        "Workshop",
        "attendees",
        "2024",
        "7",
        f"{values[2024]:.0f}",
        "283",
        *row["remark"].split(),
    ]
    assert said.splitlines()[-1] == "Next, where the site is: drush msd:kpi-warm education"
    assert command(bench) == said
    document = json.loads(command(bench, "--json", "--exit-code", status=1))
    assert document["agrees"] is False
    assert [section["name"] for section in document["sections"]] == ["education"]
    assert document["next"][-1] == "drush msd:kpi-warm education"
    assert json.loads(command(bench, "--json", "--from-year", "2023", "--exit-code"))["agrees"] is True


@on("sqlite")
def test_what_is_not_stored_or_not_as_computed_asks_for_a_run(bench: Workbench) -> None:
    change(bench.database, sa.text("UPDATE ms_fact_kpi_snapshot SET metric_value = 398 WHERE metric_value = 399"))
    said = command(bench, "--computed", "--kpis", f"{ATTENDEES},{NPS}", "--from-year", "2023", "--to-year", "2026")
    assert (
        said.splitlines()[-1]
        == f"Next: kpibackfill run --target=test --from-year=2023 --to-year=2026 --kpis={NPS},{ATTENDEES}"
    )
    frame = look(bench, computed=True)
    assert frame.loc[SIGNUPS, 2025]["remark"] == "computed differs"
    assert frame.loc[NPS, 2024]["remark"] == "nothing stored"
    assert look(bench).loc[NPS, 2024]["remark"] == "nothing stored"
    assert (NPS, 2026) not in look(bench).index
    assert "Next: kpibackfill run --target=test --from-year=2023 --to-year=2025\n" in command(bench)


@on("sqlite")
def test_live_numbers_and_targets_are_marked_and_never_disagree(bench: Workbench) -> None:
    page = {SIGNUPS: {2025: 344.0, 2026: 310.0}, "total_active_members": {2027: 900.0}}
    add_payload(bench.database, overview=page)
    add_payload(bench.database, source="target", education={NPS: dict.fromkeys(range(2026, 2031), 60.0)})
    bench.configure(site={"manual_kpis": ["total_active_members"]})
    frame = look(bench)
    assert frame.loc[SIGNUPS, 2025][["page", "page_source", "stored"]].tolist() == [344.0, "live", 399.0]
    assert pd.isna(frame.loc[SIGNUPS, 2025]["agrees"])
    assert frame.loc[NPS].loc[2026:2030]["page_source"].eq("target").all()
    assert frame.loc[NPS, 2030]["agrees"]
    assert frame.loc["total_active_members", 2027][["page", "agrees"]].tolist() == [900.0, False]
    said = command(bench)
    assert "344 (live)" in said
    assert "2026–2030" in said
    assert "60.0 (target)" in said


@on("sqlite")
def test_of_rows_of_the_same_date_each_is_listed(bench: Workbench) -> None:
    change(
        bench.database,
        sa.text(
            "INSERT INTO ms_snapshot (id, definition, snapshot_type, snapshot_date, source, created_at) "
            "VALUES (900, 'manual', 'annual', '2024-12-31', 'by hand', 0)"
        ),
        sa.text(
            "INSERT INTO ms_fact_kpi_snapshot (snapshot_id, kpi_id, metric_value, period_year, period_month) "
            "VALUES (283, 'education_nps', 41, 2024, 12), (900, 'education_nps', 55, 2024, 12)"
        ),
    )
    for shown, agrees in ((41.0, True), (55.0, True), (50.0, False)):
        add_payload(bench.database, education={NPS: {2024: shown}})
        rows = look(bench, kpis=NPS).loc[[(NPS, 2024)]]
        assert rows[["snapshot_id", "stored"]].values.tolist() == [[283, 41.0], [900, 55.0]]
        assert rows["agrees"].tolist() == [agrees, agrees]


@on("sqlite")
def test_a_page_that_reads_other_ids_than_are_configured_is_shown_with_a_warning(bench: Workbench) -> None:
    add_payload(bench.database, education={f"kpi_{ATTENDEES}": {2025: 123.0}})
    row = look(bench, kpis=ATTENDEES).loc[ATTENDEES, 2025]
    assert row[["page", "stored", "agrees"]].tolist() == [123.0, 123.0, True]
    assert "Rows of a run would show on no page: see kpi_id_prefix." in command(bench)


@on("sqlite")
def test_a_rate_of_fewer_than_five_people_is_printed_nowhere(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(bench.folder)
    monkeypatch.setattr(registry, "_registry", dict(registry.load()))
    (bench.folder / "few_kpi.py").write_text(
        "import kpibackfill as kb\n"
        "@kb.kpi('rate', label='Rate', unit='fraction', family='x', description='x', sources=['ms_snapshot'])\n"
        "def rate(connection, site, windows):\n"
        "    return [kb.Value(window.window_id, 0.6173, basis=4) for window in windows]\n"
    )
    monkeypatch.delitem(sys.modules, "few_kpi", raising=False)
    bench.configure(site={"kpi_modules": ["few_kpi"]})
    add_payload(bench.database, education={"rate": {2024: 0.6173}, "of_the_archive": {2024: 1.0}})
    unstored = kb.dashboard("test", as_of=AS_OF, computed=True, kpis="rate")
    bench.finish(apply=True, kpis="rate")
    for found in (
        unstored,
        *(kb.dashboard("test", as_of=AS_OF, computed=asked, kpis="rate") for asked in (False, True)),
    ):
        for text in (repr(found), found._repr_html_(), json.dumps(found.as_dict())):
            assert "61.7" not in text
            assert "0.617" not in text
        assert "< 5" in repr(found)
        cell = next(cell for cell in found.as_dict()["cells"] if cell["year"] == 2024)
        assert (cell["page"], cell["stored"], cell["computed"], cell["withheld"]) == (None, None, None, True)
    # The page still shows what a run has deleted since.
    bench.finish(apply=True, revert_of=bench.runs[-1].name)
    deleted = kb.dashboard("test", as_of=AS_OF, kpis="rate")
    assert not deleted.agrees
    assert "61" not in json.dumps(deleted.as_dict()["cells"])
    assert "  2024          < 5       –         –  education is behind" in repr(deleted)


UNREADABLE = {
    "no array": b"Array",
    "truncated": dumps({"data": {}, "computed_at": 1})[:-5],
    "an object": b'a:1:{s:4:"data";O:8:"stdClass":0:{}}',
    "20 MB": dumps({"data": {}, "trend": "x" * 20_000_000}),
}


@on("sqlite")
@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE)
def test_a_payload_that_cannot_be_read_is_a_note(bench: Workbench, value: bytes) -> None:
    put_payload(bench.database, "education", value)
    said = command(bench, "--exit-code")
    assert said.startswith("What the page shows now is not known.")
    assert "What the dashboard shows in education is not known" in said
    add_payload(bench.database, overview={ATTENDEES: {2025: 1.0}})
    said = command(bench, "--exit-code", status=1)
    assert "other numbers than the rows in 1 cell" in said
    assert "What the dashboard shows in education is not known" in said


@on("sqlite")
@pytest.mark.parametrize(("at", "said"), [(-1, "ago"), (10**30, "unknown"), (4_000_000_000, "0 minutes ago")])
def test_absurd_times_are_no_reason_to_fail(bench: Workbench, at: int, said: str) -> None:
    entry: dict[str, Any] = {"annual_values": {"2025": 1.5}, "annual_value_sources": {"2025": "actual"}}
    put_payload(bench.database, "education", dumps({"data": {NPS: entry}, "computed_at": float(at), "expires_at": "x"}))
    first = command(bench).splitlines()[0]
    assert said in first
    assert "in 1 cell" in first


@on("sqlite")
def test_sections_without_these_kpis_and_years_without_columns_are_told(bench: Workbench) -> None:
    add_payload(bench.database, finance={"revenue": {2024: 1.0}})
    assert command(bench, "--exit-code").startswith("The page that the dashboard stores has none of these KPIs.")
    said = command(bench, "--computed", "--from-year", "2015", "--to-year", "2019")
    assert said.startswith("The annual tables have no columns for these years.")


@on("sqlite")
def test_expected_failures_are_refusals(bench: Workbench) -> None:
    for options in (["--kpis", "no_such"], ["--kpis", ""], ["--to-year", "2024"], ["--from-year", "1"]):
        refusal(bench.command("dashboard", "--target", "test", *options))
    refusal(bench.command("dashboard", "--target", "nowhere"))
