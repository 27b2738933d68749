"""What people read of runs: tables, sentences and pages, in the terminal, in notebooks and in the report."""
