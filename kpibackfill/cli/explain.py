"""Commands that explain: explain, notebooks."""

from __future__ import annotations
