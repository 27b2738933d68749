"""The expected failures: each is one or two lines for the analyst, with a code for programs and an exit status."""

from __future__ import annotations

LONGEST = 1000
"""Characters of a message."""


class KpiBackfillError(Exception):
    """Something the user can mend. Nothing was written.

    Parameters
    ----------
    message : what was wrong, what was left untouched, what to do: one or two lines.
    code : a short stable word for programs, such as ``unknown_kpi``.
    """

    exit_code = 2
    state = "failed"

    def __init__(self, message: str, *, code: str = "failed") -> None:
        # A message may quote what was given, which may be anything.
        message = message if len(message) <= LONGEST else f"{message[: LONGEST // 2]} … {message[-LONGEST // 4 :]}"
        super().__init__(message)
        self.message = message
        self.code = code

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback: an analyst needs the sentence, not our call stack."""
        return [f"{type(self).__name__}: {self.message}"]


class Refused(KpiBackfillError):
    """A check said no: the request, the configuration or the data are not fit to go on with."""

    state = "refused"


class OutcomeUnknown(KpiBackfillError):
    """A commit was sent and its answer never came, or it can't be put on record: ``kpibackfill settle`` is next."""

    exit_code = 3
    state = "unknown"


class Bug(Exception):
    """The notebook raised what is no expected failure; its traceback is the message."""
