# Needs make, Python 3.11 or later and access to a package index; everything else goes into .venv.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo notebook test faults bench test-spark lint types docs clean

BIN := .venv/bin
SPARK := 'pyspark[connect]>=4.1'
# The first one that works and is recent enough is used; `make demo PYTHON=/path/to/python` selects another.
PYTHON := python3 python3.14 python3.13 python3.12 python3.11

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

demo: .venv/installed ## build the demo makerspace and execute the notebook on it: a dry run
	@$(BIN)/kpibackfill demo
	@$(BIN)/kpibackfill run --target demo --from-year 2015 --to-year "$$(($$(date +%Y) - 1))"
	@echo 'To type these commands yourself, activate the environment first: . .venv/bin/activate'

# KPIBACKFILL_CONFIG in the shell may name a configuration with another demo, or with none.
demo: export KPIBACKFILL_CONFIG := kpibackfill.toml

notebook: .venv/installed ## open the notebook in JupyterLab
	@$(BIN)/jupyter lab notebooks/kpi_backfill.ipynb

test: .venv/installed-dev ## run the tests; those that need a missing database server are skipped
	@$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile

faults: .venv/installed-dev ## run the long fault-injection tests (figures in docs/guarantees.md)
	@KPIBACKFILL_FAULTS=10 $(BIN)/pytest tests/faults -m '' -o faulthandler_timeout=0

bench: .venv/installed-dev ## measure speed and memory (the table in docs/performance.md)
	@$(BIN)/python -m benchmarks
	@$(BIN)/python -m benchmarks.rows

test-spark: .venv-spark/installed ## test on a real Spark cluster on this machine (needs Java 17)
	@.venv-spark/bin/python -m pytest -m spark tests/engines/test_spark.py

lint: .venv/installed-dev ## check style, formatting, what imports what, and that notebooks contain no output
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/nbstripout --keep-id --verify notebooks/*.ipynb
	@$(BIN)/lint-imports --no-logo --no-cache

types: .venv/installed-dev ## check types
	@$(BIN)/mypy

docs: .venv/installed-dev ## build the documentation into site/
	@$(BIN)/zensical build --strict --clean

clean: ## remove .venv, caches and builds; keep demo.sqlite and the records in runs/
	@rm -rf .venv .venv-spark .cache .pytest_cache .ruff_cache .mypy_cache .hypothesis dist site
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A command on PATH may not work, and Debian's Python may lack what a venv needs, so try each one.
.venv/bin/python:
	@for python in $(PYTHON); do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  "$$python" -c 'import ensurepip, sqlite3' 2>/dev/null || { bare="$$bare $$python"; continue; }; \
	  echo "Creating .venv with $$("$$python" --version)"; \
	  exec "$$python" -m venv --clear .venv; \
	done; \
	if [ -n "$$bare" ]; then \
	  echo "Found$$bare, but it lacks ensurepip or sqlite3, which .venv needs."; \
	  echo "On Debian and Ubuntu: sudo apt install python3-venv. Then run make again."; \
	else \
	  echo "Found no Python 3.11 or later (tried: $(PYTHON))."; \
	  echo "Install one, or say where it is: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; \
	fi >&2; exit 1

.venv/installed: EXTRAS := mariadb,postgresql
.venv/installed-dev: EXTRAS := dev
.venv/installed .venv/installed-dev: pyproject.toml .venv/bin/python
	$(install)
	@touch $@

# Spark includes the client that .venv has as a separate package, and one environment can hold only one of them.
.venv-spark/installed: pyproject.toml .venv/installed-dev
	@echo 'Installing Spark into .venv-spark (about 500 MB)'
	@$(BIN)/python -m venv --clear .venv-spark
	@$(BIN)/uv pip install --quiet --python .venv-spark/bin/python --editable . hypothesis pytest $(SPARK) || \
	  .venv-spark/bin/python -m pip install --quiet --disable-pip-version-check --editable . hypothesis pytest $(SPARK)
	@touch $@

# uv installs in seconds what takes pip half a minute or more; pip is used if uv is not available. Both compile bytecode
# now, so that the first run is as fast as later ones.
define install
	@echo 'Installing kpibackfill with the extras $(EXTRAS) into .venv'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv && \
	  $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable '.[$(EXTRAS)]' || { \
	    echo 'uv failed; using pip instead'; \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'; }
endef
