"""The parameters of a run: those of the notebook, checked and resolved."""

from __future__ import annotations

import ast
import getpass
import operator as operators
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from kpibackfill.config import Target
from kpibackfill.errors import Refused
from kpibackfill.kpis.registry import Cadence
from kpibackfill.text import printable

# All parameters of the notebook; the command line has the same names with dashes.
DEFAULTS: Mapping[str, Any] = {
    "target": "demo",
    "from_year": None,
    "to_year": None,
    "snapshot_types": "annually,annual",
    "kpis": "",
    "include_risky": False,
    "apply": False,
    "approved_plan": "",
    "decisions": "",
    "revert_of": "",
    "reason": "",
    "operator": "",
    "as_of": None,
}
CADENCES: Mapping[str, Cadence] = {
    "annually": "annual",
    "annual": "annual",
    "quarterly": "quarterly",
    "monthly": "monthly",
}


@dataclass(frozen=True, slots=True)
class Parameters:
    """Resolved parameters: years known, lists split, `as_of` an instant with its zone."""

    target: str
    from_year: int
    to_year: int
    snapshot_types: tuple[str, ...]
    kpis: tuple[str, ...]
    include_risky: bool
    apply: bool
    approved_plan: str
    decisions: str
    revert_of: str
    reason: str
    operator: str
    as_of: datetime
    notes: tuple[str, ...] = field(default=(), compare=False)

    def as_notebook(self) -> dict[str, Any]:
        """Return the same as plain values that papermill can write into a cell."""
        texts = {"snapshot_types": ",".join(self.snapshot_types), "kpis": ",".join(self.kpis)}
        return {name: getattr(self, name) for name in DEFAULTS} | texts | {"as_of": self.as_of.isoformat()}


def resolve(values: Mapping[str, Any], target: Target) -> Parameters:
    """Check the type and range of every value and fill in the defaults.

    Raises
    ------
    Refused : a name is unknown, or a value has the wrong type or is out of range; the message names it.
    """
    for name in values:
        if name not in DEFAULTS:
            raise unknown_name(name)
    given = {**DEFAULTS, **values}
    notes: list[str] = []
    as_of = _instant(given["as_of"], target)
    from_year, to_year = _year("from_year", given["from_year"]), _year("to_year", given["to_year"])
    if from_year is None and to_year is not None:
        raise _refused("to_year", "was given without from_year; give both")
    from_year = as_of.astimezone(target.zone).year - 1 if from_year is None else from_year
    to_year = from_year if to_year is None else to_year
    if from_year > to_year:
        notes.append(f"The years {from_year} to {to_year} were given in reverse order and have been swapped.")
        from_year, to_year = to_year, from_year
    types = tuple(dict.fromkeys(name.lower() for name in _names("snapshot_types", given["snapshot_types"])))
    for name in types:
        if name not in CADENCES:
            raise _refused("snapshot_types", f"has {name!r}, which is not one of {', '.join(CADENCES)}")
    if not types:
        raise _refused("snapshot_types", "is empty; the default is annually,annual")
    texts: dict[str, Any] = {
        name: one_line(name, given[name]) for name in ("approved_plan", "decisions", "revert_of", "reason")
    }
    return Parameters(
        target=target.name,
        from_year=from_year,
        to_year=to_year,
        snapshot_types=types,
        kpis=tuple(dict.fromkeys(_names("kpis", given["kpis"]))),
        include_risky=_flag("include_risky", given["include_risky"]),
        apply=_flag("apply", given["apply"]),
        **texts,
        operator=one_line("operator", given["operator"]) or system_user(),
        as_of=as_of,
        notes=tuple(notes),
    )


def injected_names(executed: Iterable[str]) -> list[str]:
    """Return the names that the last executed cell starting with ``# Parameters`` assigns, in order.

    papermill only warns about a parameter that a notebook doesn't know, so a mistyped one would be ignored.
    """
    cells = [source for source in executed if source.lstrip().startswith("# Parameters")]
    if not cells:
        return []
    names: list[str] = []
    try:
        statements = ast.parse(cells[-1]).body
    except SyntaxError:
        raise Refused(
            "The parameters cell is not valid Python; nothing was read or written. Keep only lines such as "
            "name = value in it.",
            code="parameter",
        ) from None
    for statement in statements:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names += [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
    return names


def refuse_unknown(names: Iterable[str]) -> None:
    for name in names:
        if name not in DEFAULTS and not name.startswith("PAPERMILL_"):
            raise unknown_name(name)


def unknown_name(name: str) -> Refused:
    import difflib

    near = difflib.get_close_matches(name, DEFAULTS, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Parameters: {', '.join(DEFAULTS)}."
    return Refused(f"There is no parameter {name!r}; nothing was read or written. {hint}", code="unknown_parameter")


def system_user() -> str:
    try:
        return " ".join(printable(getpass.getuser()).split())[:200]
    except (OSError, KeyError):  # a user in a container may have no name
        return f"uid {os.getuid()}"


def command_options(parameters: Mapping[str, Any]) -> list[str]:
    """Return the command-line options for these parameters, without those at their default."""
    given = {name: parameters[name] for name, default in DEFAULTS.items() if parameters[name] != default}
    return [f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}") for name, value in given.items()]


def _refused(name: str, problem: str) -> Refused:
    return Refused(f"{name} {problem}. Nothing was read or written.", code="parameter")


def shown(value: object) -> str:
    """Show in an error what was given as a parameter's value, which may be anything."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  for example a number of 5,000 digits
        text = f"that {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "…"


def _year(name: str, value: Any) -> int | None:
    if value is None:
        return None
    try:
        year = None if isinstance(value, bool) else operators.index(value)
    except TypeError:
        year = None
    if year is None:
        raise _refused(name, f"must be a whole number such as 2024, not {shown(value)}")
    if not 1000 <= year <= 9999:
        raise _refused(name, f"must be a year with four digits, not {shown(year)}")
    return year


def _flag(name: str, value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    hint = "; papermill passes any other word after -p as text: write -p apply True" if name == "apply" else ""
    raise _refused(name, f"must be exactly True or False, not {shown(value)}{hint}")


def one_line(name: str, value: Any) -> str:
    """Return a text that a person gave, without surrounding spaces; refuse it unless it is one line of text."""
    if not isinstance(value, str):
        raise _refused(name, f"must be text, not {shown(value)} (papermill's -r passes it as text)")
    if len(value) > 2000 or "\n" in value:
        raise _refused(name, "must be one line of at most 2,000 characters")
    if printable(value) != value:
        raise _refused(name, "must be one line of text, without control characters")
    return value.strip()


def _names(name: str, value: Any) -> list[str]:
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise _refused(name, f"must be text separated by commas, or a list of texts, not {shown(value)}")
    return [text for text in (one_line(name, item) for item in value) if text]


def _instant(given: Any, target: Target) -> datetime:
    value = given
    if value is None:
        return datetime.now(target.zone).replace(microsecond=0)
    if isinstance(value, str):
        with suppress(ValueError):
            value = datetime.fromisoformat(value)
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime):
        raise _refused("as_of", f"must be an instant such as 2026-01-15T09:00, not {shown(value)}")
    instant = value if value.tzinfo else value.replace(tzinfo=target.zone)
    if not 1001 <= instant.year <= 9998:
        raise _refused("as_of", f"must be an instant in the years 1001 to 9998, not {given!s:.60}")
    return instant.replace(microsecond=0)
