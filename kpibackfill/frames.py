"""The DataFrames that pass between steps: each carries a digest, so that the next step refuses an edited one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kpibackfill.errors import Refused
from kpibackfill.run import Run

KEY = "kpibackfill"


@dataclass(frozen=True, eq=False)
class Seal:
    """Where a frame comes from: the run, the digest of its content, and what later steps need from it."""

    run: Run
    digest: str
    content: Any = None

    def __deepcopy__(self, _memo: dict[int, Any]) -> Seal:
        # pandas copies `attrs` with every view of a frame; a seal never changes.
        return self


def sealed(frame: pd.DataFrame, run: Run, content: Any = None, **attributes: Any) -> pd.DataFrame:
    """The frame with its seal, and with `attributes` for figures, in ``attrs``."""
    frame = frame.copy(deep=False)
    frame.attrs = dict(attributes)
    frame.attrs[KEY] = Seal(run, digest(frame), content)
    return frame


def seal_of(frame: Any) -> Seal:
    """The seal of an unedited frame.

    Raises
    ------
    Refused : the frame comes from elsewhere, or its content is not what the step returned.
    """
    seal = frame.attrs.get(KEY) if isinstance(frame, pd.DataFrame) else None
    if not isinstance(seal, Seal):
        raise _edited("This is not the table that the previous step returned")
    if seal.digest != digest(frame):
        raise _edited("Computed values were changed by hand")
    return seal


def digest(frame: pd.DataFrame) -> str:
    """SHA-256 of names, order and content."""
    found = hashlib.sha256("\0".join(map(str, frame.columns)).encode())
    for name in frame.columns:
        column = frame[name]
        if column.dtype == object:
            column = column.map(repr)
        found.update(pd.util.hash_pandas_object(column, index=True).to_numpy().tobytes())
    return found.hexdigest()


def _edited(what: str) -> Refused:
    return Refused(
        f"{what}; nothing was written. To set a value by hand, use a decisions file.",
        code="edited_frame",
    )
