"""The report of a run for people without Jupyter, rendered from its records."""

from __future__ import annotations

import html
import json
from pathlib import Path


def render(folder: Path) -> str:
    """One self-contained HTML file from the receipt and the plan in `folder`."""
    receipt = json.loads((folder / "receipt.json").read_bytes())
    return f"<!doctype html><title>{html.escape(receipt['run_id'])}</title><pre>{html.escape(json.dumps(receipt, indent=1))}</pre>"
