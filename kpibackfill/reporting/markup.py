"""What people see of the steps' results: tables as HTML for the notebook and the report, sentences for the rest.

Every value is escaped by the templates. Where a rate rests on fewer than five people its number is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from kpibackfill.archive.models import Decision, DriftRow, PlanRow, Settlement, State, Written
from kpibackfill.kpis.registry import Kpi
from kpibackfill.numbers import FEW, NONE, NOT_FOR_PUBLICATION, Unit, amount, measure, too_few
from kpibackfill.text import count, shown

if TYPE_CHECKING:
    from jinja2 import Environment

# What matters stands first.
STATUSES = ("unsupported", "changed", "new", "no_data", "unchanged")
DIFFERS = STATUSES[:3]
MOVED = ("source", "store", "both", "vanished")


class Described(Protocol):
    """A KPI, or what the record keeps of one."""

    @property
    def label(self) -> str: ...

    @property
    def unit(self) -> Unit: ...


Kpis = Mapping[str, Described]
"""By the registry's id; a KPI that only decisions set is not in it."""


@dataclass(frozen=True, repr=False)
class Table:
    """HTML for a notebook, with a sentence for where there is none."""

    html: str
    sentence: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.sentence


def readings_html(
    snapshots: Sequence[Mapping[str, Any]],
    computed: Iterable[Mapping[str, Any]],
    kpis: Sequence[Kpi],
    notes: Sequence[str],
) -> str:
    """A row per target snapshot with what each KPI gives for it, and the warnings as numbered remarks."""
    remarks: dict[str, list[str]] = {}
    found: dict[tuple[int, str], dict[str, str]] = {}
    units = {entry.kpi_id: entry.unit for entry in kpis}
    for row in computed:
        basis, population = _whole(row["basis"]), _whole(row["population"])
        unit = units[row["kpi_id"]]
        few = too_few(unit, basis)
        for text in row["warnings"]:
            remarks.setdefault(text, []).append(row["period"])
        found[row["snapshot_id"], row["kpi_id"]] = {
            "text": FEW if few and row["computed"] == row["computed"] else amount(row["computed"], unit),
            "title": NOT_FOR_PUBLICATION if few else _rests_on(basis, population),
            "marks": ", ".join(str(list(remarks).index(text) + 1) for text in row["warnings"]),
        }
    return render(
        "readings",
        rows=[(row, [found[row["snapshot_id"], entry.kpi_id] for entry in kpis]) for row in snapshots],
        kpis=kpis,
        remarks=[{"text": text, "periods": dict.fromkeys(periods)} for text, periods in remarks.items()],
        notes=notes,
    )


def by_weight(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The `drift_rows` by status, those that matter first, and by the size of their drift; as in the figures, those
    from a stored 0, of which it is no share, last."""
    return sorted(
        rows, key=lambda row: (STATUSES.index(row["status"]), 1 if row["size"] is None else -abs(row["size"]))
    )


def drift_sentence(rows: Sequence[Mapping[str, Any]]) -> str:
    """``Of 55 rows 4 changed, 2 new, 1 unsupported, 48 unchanged.``, and who moved since the last record."""
    found = [row["status"] for row in rows]
    if not found:
        return "There is nothing to compare."
    parts = [
        f"{found.count(status)} {status.replace('_', ' ')}"
        for status in ("unsupported", "changed", "new", "unchanged", "no_data")
        if status in found
    ]
    moved = moved_sentence(row["moved"] for row in rows)
    return f"Of {len(found)} row{'s' * (len(found) != 1)}: {', '.join(parts)}. {moved}".rstrip()


def moved_sentence(moved: Iterable[str]) -> str:
    """Who moved, in a sentence; empty where nothing did since it was last recorded."""
    found = list(moved)
    counts = {word: found.count(word) for word in MOVED}
    told = {
        "source": "{} would be computed otherwise now (sources, settings or code have changed)",
        "store": "somebody changed {} that {} stored",
        "both": "both happened to {}",
        "vanished": "{} vanished, as when a snapshot is rebuilt",
    }
    parts = [
        told[word].format(f"{count} row{'s' * (count != 1)}", "is" if count == 1 else "are")
        for word, count in counts.items()
        if count
    ]
    return f"Since it was last recorded: {'; '.join(parts)}." if parts else ""


def drift_rows(rows: Iterable[DriftRow], kpis: Kpis) -> list[dict[str, Any]]:
    """Rows of a receipt with what people read of them added."""
    shown = []
    for row in rows:
        unit = kpis[row.kpi_id].unit
        few = too_few(unit, row.basis)
        # What is stored came from the same few people, so it is withheld beside a computed rate of theirs.
        withheld = few and row.computed is not None
        stored, computed, delta, change = (
            None if withheld else value for value in (row.stored, row.computed, row.delta, row.change)
        )
        remarks = list(row.warnings)
        stored_period = (row.stored_period_year, row.stored_period_month)
        if row.status == "changed" and stored_period != (row.period_year, row.period_month):
            remarks.insert(0, f"The stored period is {row.stored_period_year}-{row.stored_period_month}.")
        if row.moved:
            remarks.insert(0, _moved_remark(row.moved, FEW if withheld else amount(row.recorded, unit)))
        if row.decided:
            remarks.insert(0, f"{row.decided[0].upper()}{row.decided[1:]}.")
        if withheld:
            remarks.insert(0, f"{NOT_FOR_PUBLICATION.capitalize()}.")
        # In hundredths of its measure, to sort shares and points together.
        size = change if unit == "count" else delta / 100 if unit == "points" and delta is not None else delta
        shown.append(
            {
                **dict(row),
                "label": kpis[row.kpi_id].label,
                "withheld": withheld,
                "stored_text": FEW if withheld and row.stored is not None else amount(stored, unit),
                "computed_text": FEW if withheld else amount(computed, unit),
                "drift_text": FEW if withheld else NONE if delta == 0 else measure(delta, change, unit),
                "basis_text": FEW if few else _rests_on(row.basis, row.population),
                "stored_sort": _sort(stored),
                "computed_sort": _sort(computed),
                "size": size,
                "drift_sort": _sort(size),
                "remarks": remarks,
            }
        )
    return shown


def remarks(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """What was noticed of `drift_rows`: per KPI each sentence with the periods that it was said of."""
    found: dict[str, dict[str, list[str]]] = {}
    for row in sorted(rows, key=lambda row: row["snapshot_date"]):
        for sentence in row["warnings"]:
            found.setdefault(row["label"], {}).setdefault(sentence, []).append(row["period"])
    return [
        (label, [(", ".join(dict.fromkeys(periods)), sentence) for sentence, periods in sentences.items()])
        for label, sentences in found.items()
    ]


def _moved_remark(moved: str, recorded: str) -> str:
    """What a row of the drift says of who moved; `recorded` is the recorded value as people read it."""
    return {
        "source": f"What is computed now differs from the {recorded} recorded: sources, settings or code have changed.",
        "store": f"Somebody changed the stored row since {recorded} was recorded.",
        "both": f"What is computed now differs from the {recorded} recorded, and somebody changed the stored row too.",
        "vanished": f"The row has vanished since {recorded} was recorded.",
    }[moved]


def plan_rows(
    rows: Iterable[PlanRow],
    kpis: Kpis,
    prefix: str,
    snapshots: Mapping[int, Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Rows of a plan document with what people read of them added, and their snapshot where it is known."""
    shown = []
    for row in rows:
        kpi = kpis.get(row.kpi_id.removeprefix(prefix))
        unit = kpi.unit if kpi else None
        before = None if row.before is None else row.before.metric_value
        few = too_few(unit, row.basis)
        from_text, to_text = (
            FEW if few and value is not None else amount(value, unit) for value in (before, row.value)
        )
        label = kpi.label if kpi else row.kpi_id
        snapshot = (snapshots or {}).get(row.snapshot_id)
        by = {"set": "set by hand", "remove": "removed by hand", "revert": "restored"}.get(row.origin, "")
        texts = {"label": label, "by": by, "from_text": from_text, "to_text": to_text}
        shown.append({**dict(row), **texts, "snapshot": snapshot})
    return shown


def planned_rows(
    rows: Iterable[PlanRow], drift: Sequence[Mapping[str, Any]], kpis: Kpis, prefix: str
) -> list[dict[str, Any]]:
    """As `plan_rows`, beside the run's `drift_rows`: with their snapshots, and withheld where those are."""
    withheld = {(row["snapshot_id"], prefix + row["kpi_id"]) for row in drift if row["withheld"]}
    return [
        row
        | {
            name: FEW
            for name in ("from_text", "to_text")
            if (row["snapshot_id"], row["kpi_id"]) in withheld and row[name] != NONE
        }
        for row in plan_rows(rows, kpis, prefix, {row["snapshot_id"]: row for row in drift})
    ]


def decided_rows(
    decided: Iterable[Decision], kpis: Kpis, drift: Iterable[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """What was decided, as a receipt has it, with what people read of it added; withheld where the drift's row is."""
    withheld = {(row["snapshot_id"], row["kpi_id"]) for row in drift if row["withheld"]}
    shown = []
    for decision in decided:
        few = (decision.snapshot_id, decision.kpi_id) in withheld
        kpi = kpis.get(decision.kpi_id)
        value = None if decision.value is None else amount(decision.value, kpi.unit if kpi else None)
        label = kpi.label if kpi else decision.kpi_id
        shown.append({**dict(decision), "label": label, "value_text": "" if value is None else FEW if few else value})
    return shown


def plan_html(
    rows: Iterable[PlanRow],
    kpis: Kpis,
    prefix: str,
    fingerprint: str,
    decided: Iterable[Decision],
    notes: Sequence[str],
) -> str:
    """The rows of a plan document, what was decided, and the notes."""
    shown = plan_rows(rows, kpis, prefix)
    few = [
        {"snapshot_id": row["snapshot_id"], "kpi_id": row["kpi_id"].removeprefix(prefix), "withheld": True}
        for row in shown
        if FEW in (row["from_text"], row["to_text"])
    ]
    return render(
        "planned",
        rows=shown,
        decided=decided_rows(decided, kpis, few),
        notes=notes,
        sentence=actions_sentence([row["action"] for row in shown]),
        fingerprint=fingerprint,
    )


def actions_sentence(actions: Sequence[str]) -> str:
    """``30 rows: 19 to insert, 11 to update.``"""
    if not actions:
        return "The plan is empty: there is nothing to write."
    counts = ", ".join(f"{actions.count(name)} to {name}" for name in ("insert", "update", "delete") if name in actions)
    return f"{len(actions)} row{'s' * (len(actions) != 1)}: {counts}."


def written_sentence(written: Written) -> str:
    """``19 rows inserted, 11 rows updated.``"""
    past = {"insert": "inserted", "update": "updated", "delete": "deleted"}
    parts = [f"{count} row{'s' * (count != 1)} {past[name]}" for name in past if (count := getattr(written, name))]
    return f"{', '.join(parts)}." if parts else "the plan was empty, nothing was written."


def settlement_sentence(run_id: str, found: Settlement | State) -> str:
    """What a settlement found, or how the run had ended already, for people."""
    if not isinstance(found, Settlement):
        return f"{run_id} had ended as {found}. That is on record now."
    text = {
        "applied": f"{run_id} was carried out: its transaction was committed.",
        "not_in_effect": f"{run_id} is not in effect: nothing of it is in the database.",
        "changed_since": f"{run_id} can't be settled as a whole: somebody has changed its rows since.",
    }[found.outcome]
    others = {"changed_since": "Changed since by somebody else"}
    if found.outcome == "applied":
        others["as_before"] = "Restored since, by somebody else, to what was there before the run"
    for state, words in others.items():
        named = [f"({row.snapshot_id}, {row.kpi_id})" for row in found.rows if row.found == state]
        text += f" {words}: {', '.join(named)}." if named else ""
    return text


def style() -> str:
    """The style that tables in a notebook go by."""
    return block("{{ t.style() }}")


@cache
def templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("kpibackfill"),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.globals["count"] = count  # count(2, "row") is "2 rows"
    return environment


def render(macro: str, **values: Any) -> str:
    """A macro of ``tables.html`` with these values, framed and styled for a notebook's cell."""
    tables: Any = templates().get_template("tables.html").module
    return str(tables.cell(getattr(tables, macro)(**values)))


def block(source: str, **values: Any) -> str:
    """A template of tables (``t``) and these values, as HTML."""
    text = "{% import 'tables.html' as t %}" + source
    return templates().from_string(text).render(**values)


def _whole(value: Any) -> int | None:
    return None if value is None or value != value or str(value) == "<NA>" else int(value)


def _rests_on(basis: int | None, population: int | None) -> str:
    if basis is None:
        return ""
    return f"{basis:,}" if population is None else f"{basis:,} of {population:,}"


def _sort(value: Any) -> str:
    return "" if value is None else repr(float(value))
