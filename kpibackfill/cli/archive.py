"""Commands that read the archive: runs, show, diff, history, verify, archive."""

from __future__ import annotations
