"""Tables that spreadsheets open as they are: comma-separated, with a byte-order mark, and without formulas."""

from __future__ import annotations

import re

import pandas as pd

from kpibackfill.numbers import FEW, NOT_FOR_PUBLICATION, too_few
from kpibackfill.text import printable

MARK = "\ufeff"


def drift_csv(drift: pd.DataFrame) -> str:
    """``drift.csv``: the drift for people. A rate of too few people is withheld, and the stored value with it."""
    frame = drift.drop(columns=["computed_f4", "stored_f4"]).astype(object)
    units = {kpi_id: words["unit"] for kpi_id, words in drift.attrs["kpis"].items()}
    frame["warnings"] = ["; ".join(warnings) for warnings in drift["warnings"]]
    few = [
        computed == computed and too_few(units[kpi_id], None if pd.isna(basis) else int(basis))
        for kpi_id, basis, computed in zip(drift["kpi_id"], drift["basis"], drift["computed"], strict=True)
    ]
    numbers = ["computed", "stored", "recorded", "delta", "change", "population"]
    frame.loc[few, numbers] = frame.loc[few, numbers].where(frame.loc[few, numbers].isna(), NOT_FOR_PUBLICATION)
    frame.loc[few, "basis"] = FEW
    for name in ("snapshot_type", "source", "warnings", "decided"):
        frame[name] = [no_formula(printable(str(value))) for value in frame[name]]
    text: str = frame.to_csv(index=False, lineterminator="\r\n")
    return MARK + text


def no_formula(text: str) -> str:
    """The text, so that no spreadsheet runs it as a formula; a number stays a number."""
    # Spreadsheets skip a byte-order mark, and some read full-width signs as plain ones.
    begins = text.lstrip(MARK)[:1] in tuple("=+-@\t\r＝＋－＠")
    return "'" + text if begins and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(re.sub("[.,]", "", text))  # either may be the decimal mark or the thousands separator
    except ValueError:
        return False
    return True
