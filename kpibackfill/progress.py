"""Progress of long work: one line that is overwritten, in the notebook and, through it, in the terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

# Marks the display messages that `kpibackfill run` shows in the terminal.
METADATA_KEY = "kpibackfill_progress"


class Progress:
    """Shows ``Computing Workshop attendees (2 of 5)`` in a notebook's cell; outside a notebook it shows nothing."""

    def __init__(self, verb: str, total: int) -> None:
        self._verb, self._total, self._done = verb, total, 0
        self._handle: Any = None

    def __enter__(self) -> Progress:
        return self

    def at(self, what: str) -> None:
        self._done += 1
        self._show(f"{self._verb} {what} ({self._done} of {self._total})")

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if kind is None and self._done:
            self._show(f"{self._verb}: {self._done} of {self._total} done")

    def _show(self, text: str) -> None:
        ipython = sys.modules.get("IPython")
        if ipython is None or getattr(ipython.get_ipython(), "kernel", None) is None:
            return
        from IPython.display import display

        data, metadata = {"text/plain": text}, {METADATA_KEY: True}
        if self._handle is None:
            self._handle = display(data, metadata=metadata, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(data, metadata=metadata, raw=True)
