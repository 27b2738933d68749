"""Expected failures: each is one or two lines for the analyst, with a code for programs and an exit status."""

from __future__ import annotations

LONGEST = 1000
"""The most characters that a message has."""


class KpiBackfillError(Exception):
    """Something the user can fix. Nothing was written.

    Parameters
    ----------
    message : what was wrong, what was left untouched, what to do: one or two lines.
    code : a short stable word for programs, such as ``unknown_kpi``.
    """

    exit_code = 2
    state = "failed"

    def __init__(self, message: str, *, code: str = "failed") -> None:
        # A message may quote user input of any length.
        message = message if len(message) <= LONGEST else f"{message[: LONGEST // 2]} … {message[-LONGEST // 4 :]}"
        super().__init__(message)
        self.message = message
        self.code = code

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows instead of a traceback: the sentence, not our call stack."""
        return [f"{type(self).__name__}: {self.message}"]


class Refused(KpiBackfillError):
    """A check said no: with this request, configuration or data, a run must not go on."""

    state = "refused"


class OutcomeUnknown(KpiBackfillError):
    """A commit was sent and no answer came, or its outcome can't be recorded: ``kpibackfill settle`` is next."""

    exit_code = 3
    state = "unknown"


class Bug(Exception):
    """The notebook raised an unexpected exception; its traceback is the message."""
