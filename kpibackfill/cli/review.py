"""Commands around a run's review: review, approve, settle, revert, replay."""

from __future__ import annotations
