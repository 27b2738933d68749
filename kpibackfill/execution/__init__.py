"""Executing the notebook with papermill, for a run or a replay."""
