"""From drift and decisions to the plan: candidates, decisions on them, the rows to write."""
