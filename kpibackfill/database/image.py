"""A stored row of the fact table; needs none of the libraries that read it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from kpibackfill.numbers import same

RowKey = tuple[int, str]
"""A row of the fact table, or of a drift: its snapshot's id, and its KPI's."""


@dataclass(frozen=True, slots=True)
class Image:
    """All columns of a stored row. ``meta`` is bytes, or text where SQLite holds text; it is never shown.

    Bytes of a text that are not UTF-8 become surrogates (``surrogateescape``).
    """

    metric_value: float
    period_year: int | None
    period_month: int | None
    meta: bytes | str | None = field(repr=False)
    row_id: int | None = None

    def equals(self, other: Image) -> bool:
        """Whether both are the same stored row, the value compared as the fact table keeps it."""
        rest = replace(self, metric_value=0) == replace(other, metric_value=0)
        return rest and same(self.metric_value, other.metric_value)


def bytes_of(text: str) -> bytes:
    """The bytes that a text in an image stands for."""
    return text.encode("utf-8", "surrogateescape")


def text_of(raw: bytes) -> str:
    """The text that an image holds for these bytes."""
    return raw.decode("utf-8", "surrogateescape")
