# make run: set up and run the demo. make help: list all targets.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
NPM := PATH=$(CURDIR)/$(BIN):$$PATH npm
# Run two test files at once; many of them run whole workflows. On two cores, three at once are slower.
TESTS ?=
REPORT ?= report.html
TEST_OPTIONS ?= -n 2 --dist loadfile --no-loadscope-reorder
RUNS ?= 300
RUNS_IN_PROCESS ?= 20000

.PHONY: help run report test test-all test-cluster lint soak mutants bench generated format lock

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

run: .venv/installed  ## set up, then run the workflow with config.yaml: the demo
	$(BIN)/snakemake --cores all

report: .venv/installed  ## run the workflow, then write a report: report.html
	code=0; $(BIN)/snakemake --cores all summarise || code=$$?; \
	  if [ $$code != 0 -a $$code != 3 ]; then exit $$code; fi; \
	  $(BIN)/snakemake --cores all summarise --report $(REPORT) && exit $$code  # 3: more failed than max_failed_share

test: .venv/dev  ## set up, then run the quick tests
	$(BIN)/pytest $(TEST_OPTIONS) $(TESTS)

test-all: .venv/dev .venv/extra node_modules/.package-lock.json  ## set up, then run all tests; fails if one is skipped
	$(BIN)/pytest --all $(TEST_OPTIONS) $(TESTS)

test-cluster: .venv/dev .venv/extra .venv/slurm  ## set up, then run the tests on a real Slurm (as root, on Debian), on another scheduler and in new environments
	$(BIN)/pytest --all $(TEST_OPTIONS) tests/cluster

lint: .venv/dev node_modules/.package-lock.json  ## check style, types, structure, the workflow and the page's JavaScript
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=workflow $(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/snakefmt --check .
	$(BIN)/snakemake --lint
	$(NPM) run --silent lint
	PYTHONPATH=workflow $(BIN)/python docs/generate.py --check

soak: .venv/dev  ## run random histories with faults; resumes if interrupted (half an hour)
	$(BIN)/python tests/faults/soak.py --snakemake $(RUNS) --in-process $(RUNS_IN_PROCESS)

mutants: .venv/dev  ## break the library one line at a time; fails if the unit tests miss one (half an hour)
	$(BIN)/python tests/faults/mutants.py

bench: .venv/dev .venv/extra  ## measure embedding, map, planning, search and page; most write benchmarks/*.md (an hour); OPTIONS go to benchmarks/embedding.py
	PYTHONPATH=workflow PYTHONWARNINGS=ignore $(BIN)/python benchmarks/embedding.py $(OPTIONS)
	PYTHONPATH=workflow PYTHONWARNINGS=ignore $(BIN)/python benchmarks/sphere.py
	PYTHONPATH=workflow $(BIN)/python benchmarks/scale.py
	PYTHONPATH=workflow $(BIN)/python benchmarks/search.py
	PYTHONPATH=workflow $(BIN)/python benchmarks/page.py
	PYTHONPATH=workflow PYTHONWARNINGS=ignore $(BIN)/python benchmarks/words.py

generated: .venv/installed  ## renew the generated files: schema and reference of the configuration, columns of the tables
	PYTHONPATH=workflow $(BIN)/python docs/generate.py

format: .venv/dev node_modules/.package-lock.json  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt .
	$(NPM) run --silent format

lock: .venv/installed .venv/dev .venv/extra .venv/slurm  ## write the installed versions to the lock files
	$(BIN)/python .ci/lock.py

.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is older than Python 3.11; choose a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --no-deps --editable .
	touch $@

.venv/dev .venv/extra .venv/slurm: .venv/%: requirements-%.lock .venv/installed
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --requirement $< --constraint requirements.lock
	touch $@

node_modules/.package-lock.json: package.json package-lock.json .venv/dev
	$(NPM) ci --no-audit --no-fund --loglevel=error
	touch $@
