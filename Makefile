# Everything runs in one virtual environment, .venv, which is made when it is first needed
# and made anew when setup.cfg has changed, or PYTHON is another.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/made-with-$(subst /,-,$(PYTHON))
PEERS := $(READY)-and-peers
MUTMUT := $(READY)-and-mutmut

# Hundreds of processes are started: each would compile all of this anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint bench bench-quick mutants clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## make sample crashes, copy them between two stores, and show one
	@bash examples/demo.sh

# Four at a time on two cores: the tests wait for as long as they work.  By worksteal a process has
# whole files, and starts the servers of these alone: 270 s in place of 314.
test: $(READY) ## run the tests, but for the slow ones
	@$(BIN)/pytest -q -n 4 --dist worksteal -m "not slow"

test-all: $(READY) ## run all tests
	@$(BIN)/pytest -q -n 2

lint: $(READY) ## check format, style, types and who imports whom
	@$(BIN)/ruff format --check --config .ci/ruff.toml .
	@$(BIN)/ruff check --config .ci/ruff.toml .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache --no-logo .ci/imports.ini

# ONLY names some of the benchmarks, as `.venv/bin/python -m tests.benchmarks --help` lists them.
bench: $(PEERS) ## measure against other programs at the same work; this takes long
	@$(BIN)/python -m tests.benchmarks --json build/benchmarks.json --chart docs/distance.svg \
	    $(if $(ONLY),--only $(ONLY)) $(if $(RUNS),--runs $(RUNS))

bench-quick: $(PEERS) ## the same with less to do: some minutes
	@$(BIN)/python -m tests.benchmarks --quick --json build/benchmarks.json

mutants: $(MUTMUT) ## damage the product, and see whether the tests notice; this takes an hour or two
	@$(BIN)/python -m tests.mutants

clean: ## remove all that was made here
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@rm -rf build dist demo-crashes crashmover.egg-info
	@rm -rf examples/backend/build examples/backend/crashmover_sqlite.egg-info
	@find . -name __pycache__ -prune -exec rm -rf {} +

$(READY): setup.cfg setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	    { echo "Python 3.11 or later is needed; if you have one, name it: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "making .venv; this takes a minute the first time"
	@rm -rf .venv
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -e '.[dev]' >.venv/install.log 2>&1 || { cat .venv/install.log >&2; exit 1; }
	@touch $@

$(PEERS): $(READY)
	@echo "installing what is measured against"
	@$(BIN)/pip install -e '.[bench]' >.venv/install.log 2>&1 || { cat .venv/install.log >&2; exit 1; }
	@touch $@

$(MUTMUT): $(READY)
	@echo "installing what damages the product"
	@$(BIN)/pip install -e '.[mutants]' >.venv/install.log 2>&1 || { cat .venv/install.log >&2; exit 1; }
	@touch $@
