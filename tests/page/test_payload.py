"""The dashboard's payload: read whatever it holds, and never a reason to fail."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpibackfill.database.engine import reading
from kpibackfill.database.php_serialize import dumps
from kpibackfill.page.annual_tables import Payload
from kpibackfill.page.payload import LARGEST, _section, read_payload
from tests.databases import add_payload, dump, on, put_payload
from tests.workbench import Workbench

ENTRY: dict[str, Any] = {
    "label": "NPS",
    "annual_values": {"2023": 50.5, "2024": "61.25", "2025": "1_000", "2026": "٣"},
    "annual_value_sources": {"2023": "actual"},
}
WHOLE = dumps({"data": {"kpi_education_nps": ENTRY}, "computed_at": 1_790_000_000, "expires_at": 1_790_021_600})


def read(bench: Workbench) -> Payload:
    target = bench.config.target("test")
    with reading(target.store_url, bench.config.site) as connection:
        return read_payload(connection)


def test_a_section_has_its_times_and_its_values_by_year(bench: Workbench) -> None:
    put_payload(bench.database, "education", WHOLE)
    (section,) = read(bench).sections
    assert (section.name, str(section.computed_at)) == ("education", "2026-09-21 14:13:20+00:00")
    values = {year: (showing.value, showing.source) for year, showing in section.annual["kpi_education_nps"].items()}
    assert values == {2023: (50.5, "actual"), 2024: (61.25, "")}


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Array",
        b"\x00\xff" * 50,
        WHOLE[:-20],
        WHOLE + b"x",
        b's:4:"data";',
        b'a:1:{s:4:"data";s:1:"x";}',
        b'a:1:{s:4:"data";O:8:"stdClass":0:{}}',
        b'a:1:{s:4:"data";a:1:{s:1:"k";a:1:{s:13:"annual_values";O:8:"stdClass":1:{s:1:"x";i:1;}}}}',
        b"a:1:{" * 10_000,
        b'a:1:{s:4:"data";a:0:{}}' + b" " * LARGEST,
    ],
    ids=lambda value: f"{len(value)} bytes {value[:30]!r}",
)
def test_what_is_no_payload_is_a_note_and_the_run_goes_on(bench: Workbench, value: bytes) -> None:
    add_payload(bench.database, outreach={"kpi_workshop_attendees": {2024: 5}})
    put_payload(bench.database, "education", value)
    before = dump(bench.database)
    found = read(bench)
    assert [section.name for section in found.sections] == ["outreach"]
    assert "What the dashboard shows in education is not known" in " ".join(found.notes)
    receipt = bench.finish(from_year=2024, to_year=2024, kpis="education_nps")
    assert set(found.notes) <= set(receipt["notes"])
    assert dump(bench.database) == before
    assert "education is not known" in bench.command("check", "--target", "test").stdout


@on("sqlite")
def test_a_payload_of_twenty_megabytes_is_not_even_read(bench: Workbench) -> None:
    put_payload(bench.database, "education", dumps({"data": {}, "trend": "x" * 20_000_000}))
    assert "larger than 4 MB" in " ".join(read(bench).notes)


@on("sqlite")
def test_names_that_are_no_sections_are_passed_over(bench: Workbench) -> None:
    for name in ("x; rm -rf /", "$(id)", "Education", "a" * 65, ""):
        put_payload(bench.database, name, WHOLE)
    assert read(bench) == Payload()


_php = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=8),
    lambda inner: st.dictionaries(st.integers(0, 3000) | st.sampled_from(["2023", "annual_values", "x"]), inner),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("data", "computed_at", "expires_at"), _php)),
    st.dictionaries(st.sampled_from(["annual_values", "annual_value_sources", "label"]), _php),
)
def test_whatever_array_it_is_there_are_only_finite_numbers_and_known_times(
    document: dict[str | int, Any], entry: dict[str, Any]
) -> None:
    for given_document in (document, {**document, "data": {"kpi_x": entry}}):
        section = _section("x", given_document)
        if section is None:
            assert not isinstance(given_document.get("data"), dict)
            continue
        for values in section.annual.values():
            assert all(abs(showing.value) < float("inf") for showing in values.values())
        for at in (section.computed_at, section.expires_at):
            assert at is None or at.tzinfo is not None


@on("sqlite")
def test_no_id_of_a_payload_steers_a_terminal(bench: Workbench) -> None:
    bench.configure(site={"kpi_id_prefix": "auto"})
    add_payload(bench.database, education={"kpi_\x1b]0;owned\x07": {2024: 5}})
    assert read(bench).kpi_ids == frozenset()
    for command in ("check", "dashboard"):
        assert "\x1b" not in bench.command(command, "--target", "test").output


@on("sqlite")
@pytest.mark.parametrize("prefix", ["", "site_"])
def test_a_prefix_that_is_set_and_shown_is_the_one_that_is_read(bench: Workbench, prefix: str) -> None:
    add_payload(bench.database, education={f"{prefix}education_nps": {2024: 5}, "kpi_workshop_attendees": {2024: 5}})
    bench.configure(site={"kpi_id_prefix": prefix})
    assert "shown" in set(bench.steps(from_year=2024, to_year=2024).drift["shown"])
    assert "Nothing tells" not in bench.command("check", "--target", "test").output
