"""Decisions: what a spreadsheet saves is read as meant or refused by its line, and the plan follows it exactly."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import textwrap
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

import kpibackfill as kb
from kpibackfill.decisions import decisions_file
from kpibackfill.errors import KpiBackfillError, Refused
from kpibackfill.numbers import FEW
from kpibackfill.run import RUN_VARIABLE, prepare, recorded
from tests.databases import connect, dump, on
from tests.workbench import YEARS, Workbench, refusal

UNITS = {"education_nps": "points", "workshop_attendees": "count", "rate": "fraction", "by_hand": ""}
HEADER = "snapshot_id,kpi_id,year,numbers,decision,value,reason,reviewer\n"
KPIS: dict[str, Any] = {"kpis": "workshop_attendees,education_nps,total_new_member_signups"}
FACTS = "ms_fact_kpi_snapshot"
facts = sa.table(FACTS, *map(sa.column, ("snapshot_id", "kpi_id", "metric_value", "meta")))


def parse(lines: str, header: str = HEADER) -> tuple[decisions_file.Decision, ...]:
    return decisions_file.parse((header + lines).encode(), "d.csv", UNITS).lines


def set_value(text: str, *, delimiter: str = ",") -> float | None:
    line = io.StringIO()
    csv.writer(line, delimiter=delimiter).writerows(
        [["kpi_id", "year", "decision", "value", "reason", "reviewer"], ["by_hand", 2019, "set", text, "why", "Ann"]]
    )
    (found,) = decisions_file.parse(line.getvalue().encode(), "d.csv", UNITS).lines
    return found.value


# ---- the file ----


@given(
    st.lists(
        st.tuples(
            st.integers(1, 10**9),
            st.sampled_from(["accept", "reject", "remove", "set"]),
            st.floats(0, 1, width=32),
            st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"])).map(lambda text: f"x{text}"),
        ),
        unique_by=lambda row: row[0],
    ),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_what_a_spreadsheet_writes_is_read_back(
    rows: list[tuple[int, str, float, str]], delimiter: str, encoding: str, newline: str, trailing: bool
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=newline)
    writer.writerow([" Decision", "KPI_id", "snapshot_id", "numbers", "value", "reason", "reviewer", "notes"])
    for snapshot_id, word, value, reason in rows:
        number = (repr(value).replace(".", ",") if delimiter == ";" else repr(value)) if word == "set" else ""
        writer.writerow([word.upper(), "rate", f"{snapshot_id}.0", "n0a", number, reason, "Ann", "x"])
    if trailing:
        text.write(delimiter * 7 + newline + newline)
    raw = text.getvalue().encode(encoding)
    found = decisions_file.parse(raw, "d.csv", UNITS).lines
    assert [(d.snapshot_id, d.decision, d.value) for d in found] == [
        (snapshot_id, word, value if word == "set" else None) for snapshot_id, word, value, _ in rows
    ]


@given(
    st.binary(max_size=300) | st.text(max_size=300).map(lambda text: (HEADER + text).encode("utf-8", "surrogatepass"))
)
def test_any_file_is_read_or_refused_in_one_line(raw: bytes) -> None:
    with suppress(Refused):
        for decision in decisions_file.parse(raw, "d.csv", UNITS).lines:
            assert decision.decision in decisions_file.WORDS
            assert decision.kpi_id in UNITS


@pytest.mark.parametrize(
    ("text", "value"),
    [("41,5", 41.5), ("0,235", 0.235), ("1234,567", 1234.567), ("1,234,567", 1234567), ("1.234", 1.234), (" 7 ", 7)],
)
def test_a_decimal_comma_is_read_if_unambiguous(text: str, value: float) -> None:
    assert set_value(text) == value


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [("1,234", ","), ("1,234", ";"), ("-12,000", ","), ("1.234", ";"), ("1.234", "\t")],
)
def test_an_ambiguous_number_is_refused_showing_both_readings(text: str, delimiter: str) -> None:
    with pytest.raises(
        Refused, match=r"line 2: value '.*' may mean \S+ or \S+: write \S+ or \S+\. Nothing was written"
    ):
        set_value(text, delimiter=delimiter)


@pytest.mark.parametrize("text", ["", "n/a", "nan", "inf", "1e39", "１２", "12 34", "1,2,3", "0x10", "35 %", "1_0"])
def test_a_value_that_is_not_a_finite_number_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="line 2: "):
        set_value(text)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (
            "1,education_nps,,n1,acept,,,",
            "line 2: 'acept' is not a decision; use accept, reject, defer, set, remove",
        ),
        ("1,education_npc,,n1,accept,,,", "line 2: there is no KPI 'education_npc'"),
        ("x,education_nps,,n1,accept,,,", "line 2: snapshot_id 'x' is not a whole number"),
        ("1.5,education_nps,,n1,accept,,,", "line 2: snapshot_id '1.5' is not a whole number"),
        ("1.000,education_nps,,n1,accept,,,", "line 2: snapshot_id '1.000' is not a whole number"),
        ('"283,000",education_nps,,n1,accept,,,', "line 2: snapshot_id '283,000' is not a whole number"),
        ("1,education_nps,MMXX,n1,accept,,,", "line 2: year 'MMXX' is not a whole number"),
        (",education_nps,2019,n1,accept,,,", "line 2: accept needs a snapshot_id"),
        (",education_nps,,,set,5,why,Ann", "line 2: set needs a snapshot_id or a year"),
        ("1,education_nps,,,accept,,,", "line 2: accept needs the column “numbers”"),
        ("1,education_nps,,n1,remove,,,Ann", "line 2: remove needs a reason"),
        ("1,education_nps,,,set,5,why,", "line 2: set needs a reviewer"),
        ("1,education_nps,,,set,,why,Ann", "line 2: set needs a value"),
        ("1,rate,,,set,35,why,Ann", "line 2: rate is a fraction from 0 to 1: write 0.35 for 35 %, not 35"),
        ("1,education_nps,,n1,accept,5,,", "line 2: only the decision set takes a value, not accept"),
        ("1,education_nps,,n1,,5,,", "line 2: only the decision set takes a value, not an empty one"),
        (
            "\n1,education_nps,,n1,accept,,,\n2,education_nps,,n1,accept,,,\n1,education_nps,,n1,reject,,,",
            "lines 3 and 5 contradict each other about one row of education_nps",
        ),
        ("1,by_hand,,,set,5,why,Ann\n1,by_hand,,,set,6,why,Ann", "lines 2 and 3 contradict each other"),
        ('1,education_nps,,n1,reject,,"two\nlines",Ann\n1,x,,,accept,,,', "line 4: there is no KPI 'x'"),
        ("1,education_nps,,n1,accept,,a,b,c", "line 2 has more cells than the header"),
        ('1,education_nps,,n1,accept,,"a,', "line 2: unexpected end of data; check that all quotes are closed"),
    ],
)
def test_an_invalid_line_is_refused_by_its_number(lines: str, problem: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(lines)
    assert f"d.csv: {problem}" in str(refused.value)


def test_what_is_not_decided_yet_is_left_out_and_a_repeated_line_counts_once() -> None:
    found = parse(
        "1,education_nps,,n1,,,,\n2,education_nps,,n2,Defer,,,\n3,rate,,n3,accept,,,\n3,rate,,n3,accept,,,\n,,,,,,,\n"
    )
    assert {decision.snapshot_id for decision in found} == {3}


def test_windows_1252_and_a_line_naming_the_delimiter_are_understood() -> None:
    raw = "sep=;\r\nkpi_id;year;decision;value;reason;reviewer\r\nby_hand;2019;set;0,5;für später;Zoë\r\n".encode(
        "cp1252"
    )
    (found,) = decisions_file.parse(raw, "d.csv", UNITS).lines
    assert (found.line, found.value, found.reason, found.reviewer) == (3, 0.5, "für später", "Zoë")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_file_with_quotes_around_each_cell_is_understood(delimiter: str) -> None:
    rows = [["kpi_id", "year", "decision", "value", "reason", "reviewer"], ["by_hand", "2019", "set", "1", "why", "A"]]
    text = "".join(delimiter.join(f'"{cell}"' for cell in row) + "\r\n" for row in rows)
    (found,) = decisions_file.parse(text.encode(), "d.csv", UNITS).lines
    assert (found.kpi_id, found.year, found.value, found.reviewer) == ("by_hand", 2019, 1.0, "A")


@pytest.mark.parametrize("column", ["snapshotid", "Snapshot ID", "snapshot"])
def test_a_misspelled_column_is_refused_and_not_ignored(column: str) -> None:
    # Without it, the value would be set for every snapshot of the year.
    with pytest.raises(Refused, match=rf"d\.csv: has a column '{column.lower()}' but no 'snapshot_id'"):
        parse("270,by_hand,2019,set,5,why,Ann", f"{column},kpi_id,year,decision,value,reason,reviewer\n")
    with pytest.raises(Refused, match="has a column 'number' but no 'numbers'"):
        parse("270,education_nps,n1,accept", "snapshot_id,kpi_id,number,decision\n")


def test_unknown_columns_are_listed_except_those_of_a_review() -> None:
    header = ",".join([*decisions_file.COLUMNS, "Notes", "snapshot", "", "two\nlines"])
    found = decisions_file.parse(f"{header}\n".replace("two\nlines", '"two\nlines"').encode(), "d.csv", UNITS)
    assert found.ignored == ("notes", "snapshot", "two lines")


@pytest.mark.parametrize(
    ("header", "line"),
    [
        (HEADER.replace(",", ";"), "270,education_nps,,n1,remove,,no answers,Ann"),
        (HEADER, "270;education_nps;;n1;remove;;no answers, as he said;Ann"),
        (HEADER, "270\teducation_nps\t\tn1\tremove\t\tno answers\tAnn"),
    ],
)
def test_a_line_with_another_delimiter_than_the_header_is_refused(header: str, line: str) -> None:
    with pytest.raises(Refused, match=r"d\.csv: line 2 has no decision, and .* in its first cell"):
        parse(line, header)


@pytest.mark.parametrize(
    "raw", [b"", b"\xff\xfe\x00", b"PK\x03\x04\x00\x00", b"a,b\n1,2\n", b"kpi_id,kpi_id,decision\n"]
)
def test_a_file_without_such_a_table_is_refused(raw: bytes) -> None:
    with pytest.raises(Refused, match=r"Decisions: d\.csv"):
        decisions_file.parse(raw, "d.csv", UNITS)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path, tmp_path / "missing.csv", tmp_path / "pipe.csv", Path("/dev/full")):
        with pytest.raises(Refused, match="can't be read"):
            decisions_file.read(path, UNITS)


# ---- the run ----


def reviewed(bench: Workbench, name: str = "d.csv", **parameters: Any) -> Path:
    path: Path = kb.review(bench.steps(**KPIS, **parameters).plan, bench.folder / name).path
    return path


def proposals(bench: Workbench) -> dict[tuple[int, str], Any]:
    return {candidate.key: candidate for candidate in bench.steps(**KPIS).plan.candidates}


def test_a_run_plans_exactly_what_was_decided(bench: Workbench) -> None:
    bench.configure(site={"manual_kpis": ["retention"]})
    path = reviewed(bench)
    before = dump(bench.database)
    by: dict[str, Any] = {"reviewer": "Ann", "reason": "as agreed"}
    kb.decide(path, "education_nps", "remove", snapshot_id=270, **by)  # a false 0: there are no answers in 2016
    kb.decide(path, "education_nps", "accept", snapshot_id=278, **by)
    kb.decide(path, "workshop_attendees", "reject", snapshot_id=277, **by)
    kb.decide(path, "total_new_member_signups", "set", snapshot_id=269, value=280, **by)
    kb.decide(path, "active_instructors_bipoc", "set", year=2019, value=0.25, **by)
    path.write_text(path.read_text("utf-8-sig").replace("reviewer", "reviewer,seen by", 1))
    kb.decide(path, "retention", "set", year=2021, value=0.1, **by)
    receipt = bench.finish(**KPIS, apply=True, decisions=str(path))
    assert "Ignored columns: seen by." in receipt["notes"][-1]
    after = dump(bench.database)
    gone, new = (
        {row[-6:-1] for row in one[FACTS]} - {row[-6:-1] for row in other[FACTS]}
        for one, other in ((before, after), (after, before))
    )
    assert (270, "education_nps") in {row[:2] for row in gone} - {row[:2] for row in new}
    values = {row[:2]: row[2:] for row in new}
    f4 = {True: 0.1, False: 0.10000000149011612}[bench.database.name == "sqlite"]
    assert values.pop((269, "total_new_member_signups")) == (280.0, 2015, 12)
    assert values.pop((278, "education_nps"))[1:] == (2021, 12)
    assert values.pop((273, "active_instructors_bipoc"), None) is None  # already stored
    # Every target snapshot of 2021 has the value.
    assert values == {
        (277, "retention"): (f4, 2021, 12),
        (278, "retention"): (f4, 2021, 12),
        (279, "retention"): (f4, 2021, 6),
    }
    assert {line["decision"] for line in receipt["decisions"]} == {"accept", "reject", "set", "remove"}
    folder = bench.runs[-1]
    assert (folder / "decisions.csv").read_bytes() == path.read_bytes()
    assert "decisions.csv" in (folder / "SHA256SUMS").read_text()
    assert {row["origin"] for row in receipt["written"]["rows"]} == {"computed", "set", "remove"}
    # Once applied, the same decisions have nothing left to do.
    assert not bench.steps(**KPIS, decisions=str(path)).plan.rows


@on("sqlite", "mariadb")
@pytest.mark.parametrize("what", ["stored", "source"])
@pytest.mark.parametrize("word", ["accept", "reject", "set", "remove"])
def test_a_decision_on_numbers_that_changed_since_is_refused_and_a_deferral_is_not(
    bench: Workbench, word: str, what: str
) -> None:
    path = reviewed(bench)
    key, kpi_id = (270, "education_nps") if word == "remove" else (278, "total_new_member_signups")
    value = 3 if word == "set" else None
    kb.decide(path, kpi_id, word, snapshot_id=key, value=value, reason="why", reviewer="Ann")
    with connect(bench.database.url) as connection:
        if what == "stored" or word == "remove":
            connection.execute(
                sa.update(facts).where(facts.c.snapshot_id == key, facts.c.kpi_id == kpi_id).values(metric_value=2)
            )
        else:
            org = sa.table("ms_fact_org_snapshot", sa.column("joins"))
            connection.execute(sa.update(org).values(joins=org.c.joins + 1))
    before = dump(bench.database)
    with pytest.raises(Refused, match=r"d\.csv: line \d+: decided on numbers that have changed since"):
        bench.steps(**KPIS, apply=True, decisions=str(path))
    kb.decide(path, kpi_id, "defer", snapshot_id=key)
    assert not bench.steps(**KPIS, apply=True, decisions=str(path)).plan.rows
    assert dump(bench.database) == before


@on("sqlite")
@pytest.mark.parametrize("prefix", ["", "kpi_"])
def test_a_row_kept_by_hand_is_planned_only_by_decisions(bench: Workbench, prefix: str) -> None:
    bench.configure(site={"manual_kpis": ["retention", "education_nps"], "kpi_id_prefix": prefix})
    by_hand = bench.folder / "by-hand.csv"
    kb.decide(by_hand, "retention", "set", year=2021, value=0.1, reason="why", reviewer="Ann")
    bench.finish(kpis="workshop_attendees", apply=True, decisions=str(by_hand))
    # A row that a module computes is not kept by hand, even if this run does not compute it.
    dry = bench.finish(kpis="workshop_attendees")
    assert {row["kpi_id"] for row in dry["rows"]} == {"workshop_attendees"}
    assert {row["kpi_id"] for row in dry["review"]} <= {"workshop_attendees", "retention"}
    plan = bench.steps(kpis="workshop_attendees").plan
    assert {row.kpi_id for row in plan.rows} <= {f"{prefix}workshop_attendees"}
    review = kb.review(dry["run_id"])
    kept = review.frame[review.frame["kpi_id"] == "retention"]
    assert sorted(kept["snapshot_id"]) == ["277", "278", "279"]
    assert set(kept["status"]) == {"unsupported"}
    assert set(kept["remarks"]) == {"Kept by hand."}
    kb.decide(review.path, "retention", "remove", snapshot_id=278, reason="withdrawn", reviewer="Ann")
    before = dump(bench.database)
    receipt = bench.finish(kpis="workshop_attendees", apply=True, decisions=str(review.path))
    assert [(row["snapshot_id"], row["kpi_id"], row["action"]) for row in receipt["written"]["rows"]] == [
        (278, f"{prefix}retention", "delete")
    ]
    assert [row[:2] for row in {*before[FACTS]} - {*dump(bench.database)[FACTS]}] == [(278, f"{prefix}retention")]
    bench.finish(revert_of=bench.runs[-1].name, apply=True)
    assert dump(bench.database)[FACTS] == before[FACTS]


@on("sqlite")
@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("99,by_hand,,,set,5,why,Ann", "snapshot 99 is not one of this run's target snapshots"),
        (",by_hand,1999,,set,5,why,Ann", "this run has no target snapshot for 1999"),
        ("270,by_hand,2019,,set,5,why,Ann", "snapshot 270 is from 2016, not from 2019"),
        ("270,education_nps,,NUMBERS,accept,,,", "nothing was computed for that row"),
        ("270,workshop_participants_bipoc,,n1,accept,,,", "this run has nothing to decide there"),
        (",by_hand,2019,,set,5,why,Ann\n273,by_hand,,,set,6,why,Ann", "lines 2 and 3 contradict each other"),
    ],
)
def test_a_line_that_does_not_fit_the_run_is_refused(bench: Workbench, line: str, problem: str) -> None:
    bench.configure(site={"manual_kpis": ["by_hand"]})
    numbers = proposals(bench)[270, "education_nps"].numbers
    path = bench.folder / "d.csv"
    path.write_text(HEADER + line.replace("NUMBERS", numbers))
    with pytest.raises(Refused, match=problem):
        bench.steps(**KPIS, decisions=str(path))


@on("sqlite")
def test_an_invalid_file_is_refused_before_a_run_begins(bench: Workbench) -> None:
    path = bench.folder / "d.csv"
    path.write_text(HEADER + "1,nothing,,n1,accept,,,")
    result = bench.command("run", "--target", "test", "--from-year", "2019", "--decisions", str(path))
    assert "d.csv: line 2: there is no KPI 'nothing'" in refusal(result)
    assert not bench.runs


@on("sqlite")
def test_the_file_is_read_once_whatever_becomes_of_it_while_the_run_starts(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bench.folder / "d.csv"
    path.write_text(HEADER + ",education_nps,2019,,set,12.5,board minutes,Ann\n")
    begun = recorded(prepare({"target": "test", **YEARS, "decisions": str(path)}), "kpibackfill run")
    assert begun.record is not None
    path.write_text("somebody else's text")
    monkeypatch.setenv(RUN_VARIABLE, begun.record.run_id)
    run = kb.begin(**begun.parameters.as_notebook())
    assert run.decisions is not None
    assert [(line.year, line.value) for line in run.decisions.lines] == [(2019, 12.5)]
    assert run.decisions.name == "d.csv"


@on("sqlite")
def test_a_row_rejected_earlier_says_so_in_later_drift(bench: Workbench) -> None:
    path = reviewed(bench)
    kb.decide(path, "workshop_attendees", "reject", snapshot_id=277, reason="other definition", reviewer="Ann")
    bench.finish(**KPIS, decisions=str(path))
    drift = bench.steps(**KPIS).drift
    (sentence,) = drift.loc[drift["decided"] != "", "decided"]
    assert sentence.startswith("rejected on 20")
    assert sentence.endswith(" by Ann: other definition")
    assert sentence.removeprefix("rejected") in kb.drift_table(drift)._repr_html_()
    kb.decide(path, "workshop_attendees", "accept", snapshot_id=277)
    bench.finish(**KPIS, apply=True, decisions=str(path))
    assert not any(bench.steps(**KPIS).drift["decided"])


@on("sqlite")
def test_the_history_credits_a_value_set_by_hand_to_its_reviewer_and_the_operator(bench: Workbench) -> None:
    bench.configure(site={"manual_kpis": ["own", "my_own"], "kpi_id_prefix": "kpi_"})
    asked: dict[str, Any] = {"kpis": "workshop_attendees", "from_year": 2021, "to_year": 2021}
    plan = bench.steps(**asked).plan
    path = kb.review(plan, bench.folder / "d.csv").path
    snapshot_id = plan.rows[0].snapshot_id
    kb.decide(path, "workshop_attendees", "accept", snapshot_id=snapshot_id, reviewer="Cleo")
    kb.decide(path, "own", "set", snapshot_id=snapshot_id, value=1, reason="annual report", reviewer="Ann")
    kb.decide(path, "my_own", "set", snapshot_id=snapshot_id, value=2, reason="payroll", reviewer="Bea")
    bench.finish(**asked, decisions=str(path), apply=True, operator="Olga", reason="step 4")
    credited = {
        "kpi_own": ("Ann", "annual report"),
        "kpi_my_own": ("Bea", "payroll"),
        "kpi_workshop_attendees": ("Cleo", ""),
    }
    frame = kb.history(year=2021)
    found = zip(frame["kpi_id"], frame["reviewer"], frame["decision_reason"], strict=True)
    assert {kpi_id: names for kpi_id, *names in found} == {kpi_id: [*names] for kpi_id, names in credited.items()}
    assert set(frame["operator"]) == {"Olga"}
    assert set(frame["reason"]) == {"step 4"}
    printed = json.loads(bench.command("history", "--json").stdout)
    assert {row["kpi_id"]: (row["reviewer"], row["decision_reason"]) for row in printed} == credited
    index = (bench.config.runs_dir / "index.html").read_text()
    for text in (bench.command("history").stdout, bench.command("show", "latest").stdout, index):
        for words in ("set by hand by Ann: annual report", "set by hand by Bea: payroll", "accepted by Cleo"):
            assert words in text
    assert "set by hand by Ann: annual report; step 4" in bench.command("history").stdout


@on("sqlite")
def test_an_approved_plan_may_lose_rows_by_decisions_but_not_gain_any(
    bench: Workbench,
) -> None:
    dry = bench.finish(**KPIS)
    result = bench.command("review", dry["run_id"], "--json")
    path = Path(json.loads(result.stdout)["path"])
    assert path == bench.folder / f"decisions-{dry['run_id']}.csv"
    kb.decide(path, "education_nps", "accept", snapshot_id=278)
    applied = bench.finish(**KPIS, apply=True, approved_plan=dry["run_id"], decisions=str(path))
    assert applied["approval"]["word"] == "reviewed"
    assert [row["snapshot_id"] for row in applied["written"]["rows"]] == [278]
    kb.decide(path, "total_new_member_signups", "set", snapshot_id=269, value=1, reason="why", reviewer="Ann")
    before = dump(bench.database)
    steps = bench.steps(record=True, **KPIS, apply=True, approved_plan=dry["run_id"], decisions=str(path))
    with pytest.raises(Refused, match=r"differs in \(269, total_new_member_signups\)"):
        kb.apply_plan(steps.run, steps.plan)
    assert dump(bench.database) == before


# ---- the reviewer's side ----


@on("sqlite")
def test_a_review_says_which_rows_people_will_see_and_no_run_reads_that(bench: Workbench) -> None:
    dry = bench.finish(kpis="education_nps,total_new_member_signups")
    review = kb.review(dry["run_id"])
    assert dict(zip(review.frame["year"], review.frame["shown"], strict=True)).items() >= {
        ("2016", "outside"),
        ("2024", "shown"),
    }
    assert "hidden: outside its years" in review._repr_html_()
    kb.decide(review.path, "education_nps", "accept", snapshot_id=int(review.frame["snapshot_id"][0]), reviewer="Ann")
    whole = kb.check_decisions(review.path)
    text = review.path.read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    for change in ("edited", "absent", "shown by hand"):
        names = [name for name in rows[0] if name != "shown" or change != "absent"]
        file = io.StringIO(newline="")
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**row, "shown": change} for row in rows)
        review.path.write_text(file.getvalue(), encoding="utf-8")
        assert kb.check_decisions(review.path).equals(whole)
        steps = bench.steps(decisions=str(review.path), kpis="education_nps,total_new_member_signups")
        assert len(steps.plan) == 1
        assert "accept" in kb.review(steps.plan)._repr_html_()


@on("sqlite")
def test_a_review_is_written_here_withholds_small_rates_and_overwrites_nothing(
    bench: Workbench,
) -> None:
    with connect(bench.database.url) as connection:  # leave only four people who answered
        answers = sa.table("civicrm_value_demographics_15", sa.column("entity_id"), sa.column("custom_46"))
        keep = connection.scalars(sa.select(answers.c.entity_id).order_by(answers.c.entity_id)).all()[:4]
        connection.execute(sa.update(answers).where(answers.c.entity_id.not_in(keep)).values(custom_46=None))
    dry = bench.finish(kpis="workshop_participants_bipoc")
    review = kb.review(dry["run_id"])
    few = review.frame[review.frame["basis"] == FEW]
    assert len(few)
    assert set(few["computed"]) == {FEW}
    assert set(few["remarks"].str.slice(0, 19)) == {"not for publication"}
    assert review.path.parent == bench.folder
    assert review.path.read_bytes().startswith(b"\xef\xbb\xbf")
    before = review.path.read_bytes()
    assert "already exists" in refusal(bench.command("review", "latest"))
    assert "is in the archive" in refusal(bench.command("review", "latest", "--output", str(bench.runs[-1] / "d.csv")))
    with pytest.raises(Refused, match="is in the archive"):
        kb.decide(bench.runs[-1] / "d.csv", "education_nps", "set", year=2024, value=1)
    assert "could not be written" in refusal(bench.command("review", "latest", "--output", "x" * 5000))
    assert review.path.read_bytes() == before
    assert bench.command("verify").exit_code == 0
    applied = bench.finish(kpis="education_nps", apply=True)
    assert "is not a finished dry run" in refusal(bench.command("review", applied["run_id"]))


@on("sqlite")
def test_deciding_and_checking_in_a_notebook_needs_no_terminal(bench: Workbench) -> None:
    path = reviewed(bench)
    assert kb.check_decisions(path).empty
    decided = kb.decide(path, "education_nps", "remove", snapshot_id=270, reason="no, a false 0", reviewer="Ann")
    html = decided._repr_html_()
    assert 'href="d.csv"' in html
    assert "<b>remove</b>" in html
    assert "no, a false 0" in html
    assert f"{len(decided.frame)} rows, 1 decided" in html
    assert 'decisions = "d.csv"' in html
    (row,) = kb.check_decisions(path).to_dict("records")
    assert (row["kpi_id"], row["decision"], row["snapshot_id"], row["reason"]) == (
        "education_nps",
        "remove",
        270,
        "no, a false 0",
    )
    before = path.read_bytes()
    with pytest.raises(KpiBackfillError, match="set needs a value"):
        kb.decide(path, "education_nps", "set", year=2019, reason="why", reviewer="Ann")
    assert path.read_bytes() == before
    kb.decide(bench.folder / "new.csv", "education_nps", "set", year=2019, value=-0.5, reason="why", reviewer="Ann")
    found = kb.check_decisions(bench.folder / "new.csv")
    assert found["value"].tolist() == [-0.5]
    assert math.isnan(kb.check_decisions(path)["value"][0])


@on("sqlite")
def test_a_cell_with_a_decision_can_be_run_again_once_its_row_is_gone(bench: Workbench) -> None:
    decision: dict[str, Any] = {"snapshot_id": 270, "reason": "no answers", "reviewer": "Ann"}
    path = reviewed(bench)
    kb.decide(path, "education_nps", "remove", **decision)
    bench.finish(**KPIS, apply=True, decisions=str(path))
    review = kb.review(bench.steps(**KPIS).plan)  # as the next Run All writes it
    for before in (review.path.read_bytes(), review.path.read_bytes().splitlines(keepends=True)[0]):
        review.path.write_bytes(before)
        for word in ("accept", "reject", "Remove"):
            with pytest.warns(
                UserWarning, match="has no row for snapshot 270, education_nps: there is nothing to decide"
            ):
                shown = kb.decide(review.path, "education_nps", word, **decision)
            assert review.path.read_bytes() == before
        assert len(shown.frame) == len(before.splitlines()) - 1
    for kpi_id, snapshot_id in (("education_npss", 270), ("education_nps", None)):
        with pytest.raises(Refused, match=r"there is no KPI 'education_npss'|remove needs a snapshot_id"):
            kb.decide(review.path, kpi_id, "remove", **{**decision, "snapshot_id": snapshot_id})
    with pytest.raises(Refused, match="remove needs the column “numbers”"):
        kb.decide(bench.folder / "misspelt.csv", "education_nps", "remove", **decision)


@on("sqlite")
@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_file_keeps_its_delimiter_and_the_meaning_of_its_numbers(bench: Workbench, delimiter: str) -> None:
    bench.configure(site={"manual_kpis": ["by_hand"]})
    path = bench.folder / "d.csv"
    head = "kpi_id;year;decision;value;reason;reviewer\r\n".replace(";", delimiter)
    path.write_text(head + "by_hand;2018;set;-0,5;why;Ann\r\n".replace(";", delimiter), newline="")
    by: dict[str, Any] = {"reason": "why", "reviewer": "Ann"}
    values: tuple[Any, ...] = (np.float64(12.5), np.float32(0.25), 1.234, -2, 1e-7)
    for year, value in enumerate(values, start=2019):
        kb.decide(path, "by_hand", "set", year=year, value=value, **by)
    assert path.read_text("utf-8-sig").splitlines()[0].startswith(head.rstrip())
    assert kb.check_decisions(path)["value"].tolist() == [-0.5, 12.5, 0.25, 1.234, -2.0, 1e-7]
    ambiguous = path.read_text("utf-8-sig").replace("12,5", "1.234")
    path.write_text(ambiguous)
    with pytest.raises(Refused, match=r"'1\.234' may mean 1234 or 1\.234"):
        kb.decide(path, "by_hand", "set", year=2024, value=1, **by)
    assert path.read_text() == ambiguous


@on("sqlite")
def test_a_decision_is_written_to_the_target_of_a_link(bench: Workbench) -> None:
    path = reviewed(bench)
    link = bench.folder / "link.csv"
    for target in (path, bench.folder / "new.csv"):
        link.unlink(missing_ok=True)
        link.symlink_to(target.name)
        kb.decide(link, "education_nps", "set", year=2019, value=1, reason="why", reviewer="Ann")
        assert link.is_symlink()
        assert not target.is_symlink()
        assert len(kb.check_decisions(target)) == 1
    link.unlink()
    link.symlink_to("reviewed.csv")
    assert kb.review(bench.steps(**KPIS).plan, link).path == link
    assert link.is_symlink()
    assert (bench.folder / "reviewed.csv").is_file()


@on("sqlite")
def test_files_that_cannot_be_read_or_written_are_reported_in_one_line(bench: Workbench) -> None:
    for path in (bench.folder, "~nobody-at-all/d.csv", "a\0b"):
        with pytest.raises(Refused, match=r"Decisions: .*can't be read|is not a path to a file"):
            kb.decide(path, "education_nps", "set", year=2019, value=1, reason="why", reviewer="Ann")
    dry = bench.finish(**KPIS)
    with pytest.raises(KpiBackfillError) as failed:
        kb.review(dry["run_id"], "nowhere/d.csv")
    assert str(failed.value) == (
        f"{bench.folder}/nowhere/d.csv could not be written (No such file or directory); nothing else was changed. "
        "Free disk space, grant rights, or name another file."
    )


@on("sqlite")
def test_the_example_on_the_page_about_hand_managed_values_is_accepted(bench: Workbench) -> None:
    page = (Path(__file__).parents[2] / "docs" / "hand-managed-values.md").read_text(encoding="utf-8")
    bench.configure(site=tomllib.loads(textwrap.dedent(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0]))["site"])
    by_hand, removal = re.findall(r"```csv\n(.*?)```", page, re.DOTALL)
    path = bench.folder / "by-hand.csv"
    path.write_text(by_hand)
    plan = bench.steps(from_year=2019, to_year=2019, decisions=str(path)).plan
    assert {row.kpi_id: row.value for row in plan.rows} == {"retention_poc": 0.41}  # the other is already stored
    bench.finish(from_year=2019, to_year=2019, decisions=str(path), apply=True)
    run = bench.runs[-1]
    page_of_run = (run / "report.html").read_text(encoding="utf-8")
    for shown in (page_of_run, bench.command("show", run.name).stdout, bench.command("history").stdout):
        assert re.search(r"\b0\.41\b", shown)
    history = kb.history("retention_poc")
    assert "0.41" in next(iter(kb.plot_history(history))).svg()
    path.write_text(removal)
    (line,) = kb.check_decisions(path).to_dict("records")
    assert (line["decision"], line["snapshot_id"]) == ("remove", 103)
