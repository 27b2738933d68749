"""What the archive's frames look like in a notebook: tables for people, and a sentence where there is nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from kpibackfill import views
from kpibackfill.drift import Table
from kpibackfill.record import history as record_history
from kpibackfill.record.texts import state_words


def runs_table(runs: pd.DataFrame) -> Table:
    """Runs as a table: when, by whom and why, how each ended, and how many rows it planned and wrote.

    Parameters
    ----------
    runs : what ``runs`` returned.

    Returns
    -------
    Table for the last expression of a cell.

    Example: ``kb.runs_table(kb.runs(target="live", year=2019))``
    """
    rows = [{**run, "when": f"{run['started_at']:%Y-%m-%d %H:%M}", "state": state_words(run)} for run in _records(runs)]
    sentence = f"{len(rows):,} run{'s' * (len(rows) != 1)}." if rows else "No run is like that."
    return _table("runs", rows, sentence)


def history_table(history: pd.DataFrame) -> Table:
    """A history as a table: when, by which run, which row, from what to what, why and by whom.

    Parameters
    ----------
    history : what ``history`` returned.

    Returns
    -------
    Table for the last expression of a cell. A rate that rests on fewer than five people is "< 5".

    Example: ``kb.history_table(kb.history(kpi="education_nps"))``
    """
    rows = []
    for change in _records(history):
        unknown = {"label": change["kpi_id"], "unit": "points"}
        words = history.attrs.get("kpis", {}).get(change["kpi_id"], unknown)
        before, after = record_history.shown({**change, "after": change["value"], "unit": words["unit"]})
        why = [text for text in (record_history.origin_words(change), change["reason"]) if text]
        told = {"when": f"{change['when']:%Y-%m-%d %H:%M}", "label": words["label"], "why": "; ".join(why)}
        rows.append({**change, **told, "from_text": before, "to_text": after})
    values, runs = len(rows), len({row["run_id"] for row in rows})
    sentence = f"{values:,} value{'s' * (values != 1)}, written by {runs:,} run{'s' * (runs != 1)}."
    return _table("history", rows, sentence if rows else "No run has written such a row.")


def _records(frame: pd.DataFrame) -> Iterable[dict[str, Any]]:
    found: list[dict[str, Any]] = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return found


def _table(macro: str, rows: list[dict[str, Any]], sentence: str) -> Table:
    source = "{{ t.style() }}<div class='kb'><p>{{ sentence }}</p>{% if rows %}{{ t[macro](rows) }}{% endif %}</div>"
    return Table(views.block(source, macro=macro, rows=rows, sentence=sentence), sentence)
