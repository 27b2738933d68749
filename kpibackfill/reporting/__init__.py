"""What people read about runs: tables, sentences and pages, in the terminal, in notebooks and in the report."""
