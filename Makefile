# One Makefile for people and CI. `make demo` runs the main job, `make test` the tests; both install what they need.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all test-real docs check clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.11 ...")'
	@echo "Installing into $(VENV) (about 2 GB, a few minutes, once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(STAMP)  ## create .venv and install the package

demo: $(STAMP)  ## the whole path on the bundled models: no network, no key, no GPU
	@$(BIN)/emergence demo

# Two processes, one thread each: threads of several processes on two cores mostly wait for each other.
test: $(STAMP)  ## the tests that fit in minutes
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow and not real" -n 2 --dist loadfile

test-all: $(STAMP)  ## what `make test` leaves out: lint, types, the manual, the slow tests
	@$(MAKE) --no-print-directory lint docs
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow -n 2 --dist loadfile

test-real: $(STAMP)  ## the tests on real models, whose folder EMERGENCE_REAL_MODELS names
	@$(BIN)/python -m pytest -q -m real

.PHONY: lint
lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: $(STAMP)  ## build the manual into site/, warnings are errors
	@$(BIN)/mkdocs build --quiet --strict

check: lint docs  ## lint, types, every test, coverage
	@$(BIN)/python -m pytest -q --cov --cov-report=term-missing:skip-covered

clean:  ## remove what the demo and the tests leave behind (the environment stays)
	rm -rf demo-results mlflow.db mlartifacts build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
