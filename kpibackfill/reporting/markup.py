"""HTML from the templates, which escape every value and hold all the markup there is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from kpibackfill.text import count, shown

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True, repr=False)
class Table:
    """HTML for a notebook, with a sentence in case HTML is not shown."""

    html: str
    sentence: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.sentence


def render(macro: str, **values: Any) -> str:
    """A macro of ``tables.html`` with these values, framed and styled for a notebook's cell."""
    tables: Any = templates().get_template("tables.html").module
    return str(tables.cell(getattr(tables, macro)(**values)))


def page(name: str, **values: Any) -> str:
    """A template with these values."""
    return templates().get_template(name).render(**values)


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
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.globals["count"] = count  # count(2, "row") is "2 rows"
    return environment
