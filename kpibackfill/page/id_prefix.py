"""How the KPI ids of a site's fact table begin: as its configuration says, or found out from what is there."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kpibackfill.config import AUTO, PREFIX
from kpibackfill.page.annual_tables import IdPrefix, Payload
from kpibackfill.tables import kpi_fact
from kpibackfill.text import count, some


def spelled(prefix: str) -> str:
    """``with the prefix 'kpi_'``, or ``without a prefix``."""
    return f"with the prefix {prefix!r}" if prefix else "without a prefix"


def which_show(prefix: IdPrefix) -> str:
    """Which ids the page shows, as far as it is known."""
    if prefix.shown is not None:
        return f"The page shows those {spelled(prefix.shown)}, as its payload says."
    return f"Dashboards since February 2026 show those {spelled(PREFIX)}."


def find_prefix(connection: Connection, setting: str, payload: Payload, kpi_ids: Collection[str]) -> IdPrefix:
    """The prefix by `setting`; where that is ``auto``, by the payload, by the stored rows, or else assumed.

    Parameters
    ----------
    kpi_ids : the ids of all KPIs, as in the registry.
    """
    shown, which = _shown(payload, kpi_ids, *([] if setting == AUTO else [setting]))
    if setting != AUTO:
        return IdPrefix(
            setting, f"KPI ids are read and written {spelled(setting)}, as kpi_id_prefix says.", shown=shown
        )
    if shown is not None:
        told = f"as in the dashboard's payload ({some(which, 2)})"
        return IdPrefix(shown, f"KPI ids are read and written {spelled(shown)}, {told}.", shown=shown)
    prefixed = sa.func.lower(sa.func.substr(kpi_fact.c.kpi_id, 1, len(PREFIX))) == PREFIX
    with_prefix, without = (
        int(number or 0)
        for number in connection.execute(
            sa.select(
                *(sa.func.sum(sa.case((rows, 1), else_=0)) for rows in (prefixed, kpi_fact.c.kpi_id.in_(kpi_ids)))
            )
        ).one()
    )
    if with_prefix:
        told = f"as {count(with_prefix, 'stored row')} of this fact table"
        return IdPrefix(PREFIX, f"KPI ids are read and written {spelled(PREFIX)}, {told}.")
    if without:
        told = f"as {count(without, 'stored row')} of these KPIs; no id has the prefix {PREFIX!r}"
        return IdPrefix("", f"KPI ids are read and written {spelled('')}, {told}.")
    assumed = (
        f"Nothing tells how this site's KPI ids begin, so they are read {spelled(PREFIX)}, as newer dashboards do."
    )
    return IdPrefix(PREFIX, f"{assumed} Set kpi_id_prefix in [site] before an apply.", known=False)


def _shown(payload: Payload, kpi_ids: Collection[str], *asked: str) -> tuple[str | None, list[str]]:
    """The prefix that the payload tells, one `asked` for first, and the ids that tell it: those of these KPIs first."""
    for prefix in (*asked, PREFIX, ""):
        found = sorted(payload.kpi_ids & {prefix + kpi_id for kpi_id in kpi_ids})
        if found:
            return prefix, found
    others = sorted(name for name in payload.kpi_ids if name.startswith(PREFIX))
    return (PREFIX, others) if others else (None, [])
