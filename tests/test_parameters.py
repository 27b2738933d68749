"""The parameters of a run, and how mistakes in them are reported."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import click
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from papermill import inspect_notebook

from kpibackfill.archive.provenance import notebook_path
from kpibackfill.config import Target
from kpibackfill.errors import Refused
from kpibackfill.parameters import (
    DEFAULTS,
    command_options,
    injected_names,
    refuse_unknown,
    resolve,
)

TARGET = Target.model_validate({"store": "sqlite:///x", "timezone": "America/New_York"})
NEW_YEAR = "2026-01-01T02:00:00+00:00"  # still 2025 in New York


def wanted(**values: Any) -> Any:
    return resolve({"target": "test", "as_of": NEW_YEAR, **values}, TARGET)


@pytest.mark.parametrize(
    ("given_years", "years"),
    [
        ({}, (2024, 2024)),
        ({"as_of": "2026-01-01T00:00"}, (2025, 2025)),
        ({"from_year": 2015}, (2015, 2015)),
        ({"from_year": 2015, "to_year": 2020}, (2015, 2020)),
        ({"from_year": 2020, "to_year": 2015}, (2015, 2020)),
        ({"from_year": 1000, "to_year": 9999}, (1000, 9999)),
    ],
)
def test_years(given_years: dict[str, Any], years: tuple[int, int]) -> None:
    parameters = wanted(**given_years)
    assert (parameters.from_year, parameters.to_year) == years
    assert bool(parameters.notes) == (given_years.get("to_year") == 2015)


WRONG: list[tuple[str, Any]] = [
    *(("apply", value) for value in ("false", "False", "True", "yes", "", 1, 0, None, 1.0, ())),
    *(("include_risky", value) for value in ("true", 1, None)),
    *(("from_year", value) for value in ("abc", "2024", 2024.0, True, 99999, pd.NA, -1, 0, 999, [2024])),
    *(("to_year", value) for value in ("abc", 2024.5, False, 10000)),
    *(("snapshot_types", value) for value in ("fortnightly", "annual,weekly", "", [], 3, ["annual", 1], None)),
    *(("kpis", value) for value in (3, None, {"a": 1}, [1])),
    *(("approved_plan", value) for value in (20261122, 1e22, None, b"x")),
    *(("reason", value) for value in ("a\nb", "a\x00", "x" * 2001, 5, "\ud800", "a\u2028b", "a\u202eb", "\ufeffa")),
    *(("operator", value) for value in ("a\rb", 7, pd.NA, "an\u200bn")),
    *(("as_of", value) for value in ("yesterday", "", 5, 2026, "2026-13-01", "0001-01-01", "9999-12-31", True, pd.NaT)),
    *(("decisions", value) for value in (None, 1)),
    *(("revert_of", value) for value in (None, 1, pd.NA)),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_an_invalid_value_is_refused_naming_the_parameter(name: str, value: Any) -> None:
    values: dict[str, Any] = (
        {"from_year": 2020, name: value} if name != "to_year" else {"from_year": 2020, "to_year": value}
    )
    with pytest.raises(Refused) as raised:
        wanted(**values)
    assert raised.value.message.startswith(name)
    assert "Nothing was read or written." in raised.value.message
    assert len(raised.value.message) < 300


@pytest.mark.parametrize("name", [name for name in DEFAULTS if name != "target"])
def test_a_number_too_long_to_show_is_refused_like_any_other(name: str) -> None:
    with pytest.raises(Refused, match=f"^{name} "):
        wanted(**{"from_year": 2020, name: 10**5000})


def test_to_year_needs_from_year() -> None:
    with pytest.raises(Refused, match="to_year was given without from_year"):
        wanted(to_year=2024)


@pytest.mark.parametrize(
    ("value", "instant"),
    [
        ("2026-01-15", datetime(2026, 1, 15, 5, tzinfo=UTC)),
        ("2026-07-15T09:00", datetime(2026, 7, 15, 13, tzinfo=UTC)),
        ("2026-07-15T09:00:00.9Z", datetime(2026, 7, 15, 9, tzinfo=UTC)),
        (date(2026, 1, 15), datetime(2026, 1, 15, 5, tzinfo=UTC)),
        (datetime(2026, 1, 15), datetime(2026, 1, 15, 5, tzinfo=UTC)),
        (datetime(2026, 1, 15, tzinfo=UTC), datetime(2026, 1, 15, tzinfo=UTC)),
    ],
)
def test_as_of_is_an_instant_of_the_site(value: Any, instant: datetime) -> None:
    assert wanted(as_of=value).as_of == instant


@pytest.mark.parametrize(
    ("written", "names"),
    [("education_nps", 1), (" a , b,a, ,b", 2), (["a", "b "], 2), (("a",), 1), ("", 0), ([], 0)],
)
def test_lists_are_given_as_text_with_commas_or_lists(written: Any, names: int) -> None:
    assert len(wanted(kpis=written).kpis) == names


def test_types_ignore_case() -> None:
    assert wanted(snapshot_types="Annual, MONTHLY,annual").snapshot_types == ("annual", "monthly")


def test_resolved_parameters_ask_for_the_same_again() -> None:
    first = wanted(
        from_year=2020, to_year=2018, kpis="a,b", apply=True, reason=" why ", operator="ada", include_risky=True
    )
    assert first.as_notebook().keys() == DEFAULTS.keys()
    assert resolve(first.as_notebook(), TARGET) == first


@given(
    st.fixed_dictionaries(
        {
            "from_year": st.integers(1000, 9999),
            "to_year": st.integers(1000, 9999),
            "include_risky": st.booleans(),
            "apply": st.booleans(),
            "kpis": st.lists(st.text("abc_-= '\"", min_size=1).filter(str.strip), max_size=3),
            "reason": st.text(st.characters(categories=["L", "P", "Zs", "S"]), max_size=50),
        }
    )
)
def test_the_command_line_asks_for_the_same_as_the_notebook(values: dict[str, Any]) -> None:
    from kpibackfill.cli import main

    parameters = wanted(**values)
    parent = click.Context(main, **main.context_settings)
    read = main.commands["run"].make_context("run", command_options(parameters.as_notebook()), parent=parent).params
    del read["exit_code"]
    assert resolve(read, TARGET) == parameters


@pytest.mark.parametrize("name", ["kpi_backfill.ipynb", "kpi_explain.ipynb", "kpi_history.ipynb"])
def test_papermill_shows_the_type_and_meaning_of_each_parameter(name: str) -> None:
    found = inspect_notebook(str(notebook_path(name)))
    assert all(parameter["inferred_type_name"] in ("str", "int", "bool") for parameter in found.values())
    assert all(parameter["help"] for parameter in found.values())
    cells = json.loads(notebook_path(name).read_bytes())["cells"]
    source = next("".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", ()))
    names: dict[str, Any] = {}
    exec(compile(source, "cell", "exec"), names)
    assert injected_names([source]) == list(found)
    if name == "kpi_backfill.ipynb":
        assert {parameter: names[parameter] for parameter in found} == DEFAULTS


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        ([], []),
        (["x = 1"], []),
        (["# Parameters\na = 1\nb: int = 2\nc = d = 3\n"], ["a", "b", "c", "d"]),
        (["# Parameters\na = 1", "# Parameters\naply = True\n", "other = 1"], ["aply"]),
        (["\n# Parameters\na, b = 1, 2\n'text'\n"], ["a", "b"]),
    ],
)
def test_the_last_cell_of_parameters_counts(cells: list[str], names: list[str]) -> None:
    assert injected_names(cells) == names


def test_a_parameters_cell_that_is_not_python_is_refused() -> None:
    with pytest.raises(Refused, match="name = value"):
        injected_names(["# Parameters\n%time\na = 1"])


def test_unknown_names_are_refused_suggesting_the_nearest() -> None:
    refuse_unknown([*DEFAULTS, "PAPERMILL_INPUT_PATH"])
    with pytest.raises(Refused, match=r"no parameter 'aply'.*Did you mean 'apply'"):
        refuse_unknown(["apply", "aply"])
    with pytest.raises(Refused, match=r"no parameter 'zzz'.*Parameters: target, from_year"):
        resolve({"zzz": 1}, TARGET)
