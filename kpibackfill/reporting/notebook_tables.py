"""Tables in a notebook: KPIs, readings and plans, and the archive's runs and histories."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from kpibackfill.archive.history import origin_sentence, published_values
from kpibackfill.archive.models import DecisionLine, PlanRow
from kpibackfill.config import load_config
from kpibackfill.database.image import RowKey
from kpibackfill.kpis import registry
from kpibackfill.numbers import FEW, NOT_FOR_PUBLICATION, amount, too_few
from kpibackfill.page.annual_tables import Shown
from kpibackfill.reporting import markup
from kpibackfill.reporting.markup import Table
from kpibackfill.reporting.rows import Kpis, decision_rows, plan_rows, rests_on
from kpibackfill.reporting.sentences import actions_sentence, state_words
from kpibackfill.text import count


class Lines(pd.DataFrame):  # type: ignore[misc]
    """Shows its sentences at their full length."""

    def _repr_html_(self) -> str:
        with pd.option_context("display.max_colwidth", None):
            return str(super()._repr_html_())


def list_kpis() -> pd.DataFrame:
    """List all KPIs, the site's own included, in display order.

    Returns
    -------
    DataFrame, a row per KPI: `kpi_id`, `label`, `unit` (``count``, ``points`` or ``fraction``), `family`, `risky`
    (bool: computed only on request), `description`, `sources` (list of tables), `cadences` (list: ``annual``,
    ``quarterly``, ``monthly``).

    Raises
    ------
    Refused : there is no configuration, or a module of `kpi_modules` can't be imported.

    Example: ``kb.list_kpis().set_index("kpi_id")["description"]``
    """
    return Lines([registry.as_dict(entry) for entry in registry.load(load_config().site.kpi_modules).values()])


def runs_table(runs: pd.DataFrame) -> Table:
    """Format runs as a table: when, by whom and why, how each ended, and how many rows it planned and wrote.

    Parameters
    ----------
    runs : what ``runs`` returned.

    Returns
    -------
    Table for the last expression of a cell.

    Example: ``kb.runs_table(kb.runs(target="live", year=2019))``
    """
    rows = [
        run | {"when": f"{run['started_at']:%Y-%m-%d %H:%M}", "state": state_words(run["state"], run["settled"])}
        for run in _records(runs)
    ]
    sentence = f"{count(len(rows), 'run')}." if rows else "No runs match."
    return _table("runs", rows, sentence)


def history_table(history: pd.DataFrame) -> Table:
    """Format a history as a table: when, by which run, which row, from what to what, why and by whom.

    Parameters
    ----------
    history : what ``history`` returned.

    Returns
    -------
    Table for the last expression of a cell. A rate based on fewer than five people is "< 5".

    Example: ``kb.history_table(kb.history(kpi="education_nps"))``
    """
    rows = []
    for change in _records(history):
        unknown = {"label": change["kpi_id"], "unit": None}
        words = history.attrs.get("kpis", {}).get(change["kpi_id"], unknown)
        before, after = published_values(
            change["before"], change["value"], words["unit"], change["basis_before"], change["basis"]
        )
        origin = origin_sentence(*(change[name] for name in ("origin", "reverts", "reviewer", "decision_reason")))
        texts = {
            "when": f"{change['when']:%Y-%m-%d %H:%M}",
            "label": words["label"],
            "why": "; ".join(filter(None, [origin, change["reason"]])),
            "from_text": before,
            "to_text": after,
        }
        rows.append({**change, **texts})
    runs = len({row["run_id"] for row in rows})
    sentence = f"{count(len(rows), 'value')}, written by {count(runs, 'run')}."
    return _table("history", rows, sentence if rows else "No run has written a matching row.")


def readings_html(
    snapshots: Sequence[Mapping[str, Any]],
    computed: Iterable[Mapping[str, Any]],
    kpis: Sequence[registry.Kpi],
    notes: Sequence[str],
) -> str:
    """A row per target snapshot with each KPI's value, and the warnings as numbered remarks."""
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
            "title": NOT_FOR_PUBLICATION if few else rests_on(basis, population),
            "marks": ", ".join(str(list(remarks).index(text) + 1) for text in row["warnings"]),
        }
    return markup.render(
        "readings",
        rows=[(row, [found[row["snapshot_id"], entry.kpi_id] for entry in kpis]) for row in snapshots],
        kpis=kpis,
        remarks=[{"text": text, "periods": dict.fromkeys(periods)} for text, periods in remarks.items()],
        notes=notes,
    )


def plan_html(
    rows: Iterable[PlanRow],
    kpis: Kpis,
    prefix: str,
    fingerprint: str,
    decisions: Iterable[DecisionLine],
    notes: Sequence[str],
    shown: Mapping[RowKey, Shown | None],
) -> str:
    """The rows of a plan, what was decided, and the notes."""
    planned = plan_rows(rows, kpis, prefix, shown=shown)
    withheld = {(row.snapshot_id, row.kpi_id.removeprefix(prefix)) for row in planned if row.withheld}
    return markup.render(
        "planned",
        rows=planned,
        sentence=actions_sentence([row.action for row in planned]),
        fingerprint=fingerprint,
        decided=decision_rows(decisions, kpis, withheld),
        notes=notes,
    )


def _records(frame: pd.DataFrame) -> Iterable[dict[str, Any]]:
    found: list[dict[str, Any]] = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return found


def _whole(value: Any) -> int | None:
    return None if value is None or value != value or str(value) == "<NA>" else int(value)


def _table(macro: str, rows: list[dict[str, Any]], sentence: str) -> Table:
    return Table(markup.render(macro, rows=rows, sentence=sentence), sentence)
