# Needs make, Python 3.11 or later and a way to its packages; everything else goes into .venv.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo notebook test faults bench test-spark lint types docs clean

BIN := .venv/bin
SPARK := 'pyspark[connect]>=4.1'
# The first that runs and is recent enough; `make demo PYTHON=/path/to/python` names another.
PYTHON := python3 python3.14 python3.13 python3.12 python3.11

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

demo: .venv/installed ## build the demo makerspace and run the notebook on it, writing nothing to it
	@$(BIN)/kpibackfill demo
	@$(BIN)/kpibackfill run --target demo --from-year 2015 --to-year "$$(($$(date +%Y) - 1))"
	@echo 'Before the commands above, once in a shell: . .venv/bin/activate'

# A configuration that the shell points at may know another demo, or none.
demo: export KPIBACKFILL_CONFIG := kpibackfill.toml

notebook: .venv/installed ## open the notebook in JupyterLab
	@$(BIN)/jupyter lab notebooks/kpi_backfill.ipynb

test: .venv/installed-dev ## run the tests; those of a server that is not installed are skipped
	@$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile

faults: .venv/installed-dev ## kill, cut and crowd out runs, at length (the figures of docs/guarantees.md)
	@KPIBACKFILL_FAULTS=10 $(BIN)/pytest tests/faults -m '' -o faulthandler_timeout=0

bench: .venv/installed-dev ## measure speed and memory (the table of docs/performance.md)
	@$(BIN)/python -m benchmarks
	@$(BIN)/python -m benchmarks.rows

test-spark: .venv-spark/installed ## test on a real Spark cluster on this machine (needs Java 17)
	@.venv-spark/bin/python -m pytest -m spark tests/engines/test_spark.py

lint: .venv/installed-dev ## check style, layout, and that notebooks hold no output
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/nbstripout --keep-id --verify notebooks/*.ipynb

types: .venv/installed-dev ## check types
	@$(BIN)/mypy

docs: .venv/installed-dev ## build the documentation into site/
	@$(BIN)/zensical build --strict

clean: ## remove .venv, caches and builds; the records in runs/ and demo.sqlite stay
	@rm -rf .venv .venv-spark .cache .pytest_cache .ruff_cache .mypy_cache .hypothesis dist site
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A name on PATH need not run, and Debian's Python comes without what makes an environment: try each.
.venv/bin/python:
	@for python in $(PYTHON); do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  "$$python" -c 'import ensurepip, sqlite3' 2>/dev/null || { bare="$$bare $$python"; continue; }; \
	  echo "Making .venv with $$("$$python" --version)"; \
	  exec "$$python" -m venv --clear .venv; \
	done; \
	if [ -n "$$bare" ]; then \
	  echo "Found$$bare, but it lacks ensurepip or sqlite3, which .venv needs."; \
	  echo "On Debian and Ubuntu: sudo apt install python3-venv. Then run make again."; \
	else \
	  echo "Found no Python 3.11 or later (tried: $(PYTHON))."; \
	  echo "Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; \
	fi >&2; exit 1

.venv/installed: EXTRAS := mariadb,postgresql
.venv/installed-dev: EXTRAS := dev
.venv/installed .venv/installed-dev: pyproject.toml .venv/bin/python
	$(install)
	@touch $@

# Spark itself brings the client that .venv has as a package of its own: one environment holds only one of them.
.venv-spark/installed: pyproject.toml .venv/installed-dev
	@echo 'Installing Spark into .venv-spark (some 500 MB)'
	@$(BIN)/python -m venv --clear .venv-spark
	@$(BIN)/uv pip install --quiet --python .venv-spark/bin/python --editable . hypothesis pytest $(SPARK) || \
	  .venv-spark/bin/python -m pip install --quiet --disable-pip-version-check --editable . hypothesis pytest $(SPARK)
	@touch $@

# uv installs in seconds what takes pip half a minute or more; where uv cannot be had, pip does it. Either compiles now,
# so that the first run is as fast as the next.
define install
	@echo 'Installing kpibackfill with its extras $(EXTRAS) into .venv'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv && \
	  $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable '.[$(EXTRAS)]' || { \
	    echo 'uv could not; pip does it instead'; \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'; }
endef
