# make run: the demo, from nothing. make help: the rest.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# Two files of tests at once; each runs whole workflows. On two cores, three are slower.
TESTS ?=
REPORT ?= report.html
TEST_OPTIONS ?= -n 2 --dist loadfile --no-loadscope-reorder
RUNS ?= 300
RUNS_IN_PROCESS ?= 20000

.PHONY: help run report test test-all test-cluster lint soak bench generated format lock

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

run: .venv/installed  ## set up, then run the workflow as config.yaml says: the demo
	$(BIN)/snakemake --cores all

report: .venv/installed  ## run the workflow, and write a report of it: report.html
	$(BIN)/snakemake --cores all summarise
	$(BIN)/snakemake --cores all summarise --report $(REPORT)

test: .venv/installed  ## set up, then run the tests that every change needs; those of optional packages only if they are installed
	$(BIN)/pytest $(TEST_OPTIONS) $(TESTS)

test-all: .venv/extra  ## set up, then run all tests; a skipped test is a failure
	$(BIN)/pytest --all $(TEST_OPTIONS) $(TESTS)

test-cluster: .venv/extra .venv/slurm  ## set up, then run the tests on a real Slurm (installed and started as root, on Debian) and in fresh environments
	$(BIN)/pytest --all $(TEST_OPTIONS) tests/cluster

lint: .venv/installed  ## check style and workflow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=workflow $(BIN)/lint-imports
	$(BIN)/snakefmt --check .
	$(BIN)/snakemake --lint
	PYTHONPATH=workflow $(BIN)/python docs/generate.py --check

soak: .venv/extra  ## play random histories with faults; goes on where it was broken off (half an hour)
	$(BIN)/python tests/faults/soak.py --snakemake $(RUNS) --in-process $(RUNS_IN_PROCESS)

bench: .venv/extra  ## measure embedding, map, planning, search and page; most write benchmarks/*.md (an hour); OPTIONS are for the embedding
	PYTHONPATH=workflow PYTHONWARNINGS=ignore $(BIN)/python benchmarks/embedding.py $(OPTIONS)
	PYTHONPATH=workflow PYTHONWARNINGS=ignore $(BIN)/python benchmarks/sphere.py
	PYTHONPATH=workflow $(BIN)/python benchmarks/scale.py
	PYTHONPATH=workflow $(BIN)/python benchmarks/search.py
	PYTHONPATH=workflow $(BIN)/python benchmarks/page.py

generated: .venv/installed  ## renew the files that follow from the code: schema and reference of the configuration
	PYTHONPATH=workflow $(BIN)/python docs/generate.py

format: .venv/installed  ## bring code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt .

lock: .venv/installed  ## write the installed versions to requirements.lock, without those of the other two
	{ sed -n '/^#/p' requirements.lock; $(BIN)/pip freeze | sed 's/^\(torch==[0-9.]*\)+.*/\1/' | \
	  grep --invert-match --fixed-strings --line-regexp --file requirements-extra.lock --file requirements-slurm.lock; } > requirements.new
	mv requirements.new requirements.lock

.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	touch $@

.venv/slurm: requirements-slurm.lock .venv/installed  ## set up for runs on a Slurm cluster
	$(BIN)/python -m pip install --quiet --requirement requirements-slurm.lock --constraint requirements.lock
	touch $@

.venv/extra: requirements-extra.lock .venv/installed
	$(BIN)/python -m pip install --quiet --requirement requirements-extra.lock --constraint requirements.lock
	touch $@
