from __future__ import annotations

import pytest

from tests.databases import Database
from tests.kpis.makerspace import Makerspace


@pytest.fixture
def makerspace(store: Database) -> Makerspace:
    """A database of each engine, to be filled by the test."""
    return Makerspace(store)
