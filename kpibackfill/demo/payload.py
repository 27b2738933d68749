"""The payload from which the demo's dashboard shows its annual tables, as it was two hours ago."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from hashlib import sha256

from kpibackfill.database.php_serialize import Value, dumps
from kpibackfill.demo import stored
from kpibackfill.demo.people import Makerspace
from kpibackfill.demo.stored import KpiRow, Snapshot

SECTIONS = {
    "outreach": (stored.SIGNUPS, stored.FIRST_TIMERS),
    "education": (stored.ATTENDEES, stored.NPS, stored.PARTICIPANTS_RATE, stored.INSTRUCTORS_RATE),
    "dei": (stored.PARTICIPANTS_RATE, stored.INSTRUCTORS_RATE),
    "retention": (stored.ACTIVE_MEMBERS,),
}
# By KPI its label, and the strategic plan's targets from 2026 to 2030.
PLAN: dict[str, tuple[str, Sequence[float]]] = {
    stored.SIGNUPS: ("Total New Member Signups", (380, 400, 420, 440, 460)),
    stored.FIRST_TIMERS: ("Total First Time Workshop Participants", (860, 890, 920, 960, 1000)),
    stored.ATTENDEES: ("Workshop Attendees", (1750, 1850, 1950, 2050, 2200)),
    stored.NPS: ("Education NPS", (50, 52, 55, 58, 60)),
    stored.PARTICIPANTS_RATE: ("Workshop Participants (BIPOC)", (0.4, 0.42, 0.44, 0.46, 0.48)),
    stored.INSTRUCTORS_RATE: ("Active Instructors (BIPOC)", (0.3, 0.32, 0.34, 0.37, 0.4)),
    stored.ACTIVE_MEMBERS: ("Total Active Members", (950, 1000, 1050, 1100, 1150)),
}
PLAN_YEARS = range(2026, 2031)
LIVE_MONTHS = 36


def key_values(
    space: Makerspace, snapshots: list[Snapshot], kpi_rows: list[KpiRow], now: dt.datetime
) -> list[tuple[str, str, bytes]]:
    """The rows of Drupal's `key_value` (collection, name, value): the payload by section, and one of another kind."""
    kpis = _kpis(snapshots, kpi_rows, _live_signups(space, now), now.year)
    computed_at = int(now.timestamp()) - 2 * 3600
    rows = [("state", "system.cron_last", b"i:%d;" % computed_at)]
    for section, kpi_ids in SECTIONS.items():
        payload: dict[str, Value] = {
            "data": {kpi_id: kpis[kpi_id] for kpi_id in kpi_ids},
            "computed_at": computed_at,
            "expires_at": computed_at + 6 * 3600,
            "config_hash": sha256(repr(PLAN).encode()).hexdigest(),
        }
        rows.append(("makerspace_dashboard_kpi", f"section:v2:{section}", dumps(payload)))
    return rows


def _kpis(
    snapshots: list[Snapshot], kpi_rows: list[KpiRow], live_signups: dict[int, float], this_year: int
) -> dict[str, dict[str, Value]]:
    """The payload's data by KPI: of each year the live number, the latest annual row, or the plan's target."""
    annual: defaultdict[str, dict[int, float]] = defaultdict(dict)
    latest: dict[str, tuple[float, str]] = {}
    by_id = {snapshot.id: snapshot for snapshot in snapshots}
    for row in kpi_rows:  # in the order of their snapshots' dates
        snapshot = by_id[row.snapshot_id]
        value = float(f"{row.value:.6g}")  # as PHP reads a FLOAT
        if snapshot.type == "monthly":
            latest[row.kpi_id] = value, str(snapshot.date)
        else:
            annual[row.kpi_id][snapshot.date.year] = value
    annual[stored.SIGNUPS] |= live_signups
    kpis: dict[str, dict[str, Value]] = {}
    for kpi_id, (label, targets) in PLAN.items():
        planned = dict(zip(PLAN_YEARS, map(float, targets), strict=True))
        values = dict(sorted((planned | annual[kpi_id]).items()))
        current, last_updated = latest[kpi_id]
        kpis[kpi_id] = {
            "label": label,
            "goal_2030": planned[2030],
            "annual_values": values,
            "annual_value_sources": {
                year: "target" if year not in annual[kpi_id] else "actual_ytd" if year == this_year else "actual"
                for year in values
            },
            "last_updated": last_updated,
            "current": current,
        }
    return kpis


def _live_signups(space: Makerspace, now: dt.datetime) -> dict[int, float]:
    """Members by the year in which they joined, in the 36 months before this one, without those who came back."""
    joined: defaultdict[int, float] = defaultdict(float)
    for month in space.months:
        age = 12 * (now.year - month.year) + now.month - month.month
        if age in range(1, LIVE_MONTHS + 1):
            joined[month.year] += month.joins - month.joins // 20
    return joined
