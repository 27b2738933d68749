"""What became of a commit whose outcome is unknown: found out in the database, not guessed."""

from __future__ import annotations

from kpibackfill.config import Target
from kpibackfill.database import store
from kpibackfill.database.engine import writing
from kpibackfill.errors import KpiBackfillError, OutcomeUnknown
from kpibackfill.plan import Plan


def committed(target: Target, plan: Plan, unknown: OutcomeUnknown) -> bool:
    """Whether the plan is in the database, asked under the writers' lock, so that no transaction of it can be left.

    Raises
    ------
    OutcomeUnknown : the database can't be asked now.
    """
    from kpibackfill.apply import after_image

    assert plan.run.run_id is not None
    keys = [(row.snapshot_id, row.kpi_id) for row in plan.rows]
    try:
        with writing(target.store_url) as connection:
            current = store.locked_rows(connection, store.layout(connection), keys)
    except KpiBackfillError:
        raise OutcomeUnknown(
            f"{unknown.message} The database can't be asked whether it was carried out. "
            f"`kpibackfill settle {plan.run.run_id}` finds out; run nothing else before.",
            code=unknown.code,
        ) from None
    for row, key in zip(plan.rows, keys, strict=True):
        image = after_image(row, plan.run.run_id, plan.fingerprint)
        found = current.get(key)
        if (image is None) != (found is None):
            return False
        if image and found and not (found.meta == image.meta or found.equals(image)):
            return False
    return True
