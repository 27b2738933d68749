"""Makes ``python -m kpibackfill`` the command line."""

from kpibackfill.cli import main

if __name__ == "__main__":
    main()
