# Every target makes what it needs; `make help` lists them.
.PHONY: help demo test check bench docs clean
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := cpu,launchers,optuna,ray,stylecross,curate,dev
# More threads than cores only slow torch down, and the tests run several processes.
export OMP_NUM_THREADS ?= 1

help:  ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 8

demo: $(VENV)/installed  ## Train CSD on StyleCross, compare it with its controls, write one HTML report (10 minutes)
	env -u OMP_NUM_THREADS $(BIN)/python -m stylesim.train experiment=stylecross_demo

test: $(VENV)/installed  ## Run the tests
	$(BIN)/python -m pytest -n 2

check: $(VENV)/installed  ## Format and lint (ruff), check types (pyright)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

bench: $(VENV)/installed  ## Measure the loader and the training step on this machine
	env -u OMP_NUM_THREADS $(BIN)/python benchmarks/loader.py
	env -u OMP_NUM_THREADS $(BIN)/python benchmarks/step.py
	env -u OMP_NUM_THREADS $(BIN)/python benchmarks/search.py

docs: $(VENV)/installed  ## Write the API reference to site/
	$(BIN)/pdoc --output-directory site --docformat google stylesim

clean:  ## Remove the environment and what tools leave behind (not outputs/)
	rm -rf $(VENV) site dist .pytest_cache .ruff_cache .hypothesis

# The stamp is older than what it depends on exactly when the environment has to be made anew.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "stylesim needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip uv
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@
