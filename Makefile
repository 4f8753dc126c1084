# Every target makes what it needs; `make help` lists them.
.PHONY: help demo gallery laion-mini test test-fast check bench docs build clean
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := analysis,app,map,cpu,database,postgres,launchers,optuna,ray,stylecross,curate,docs,dev
# More threads than cores only slow torch down, and the tests run several processes.
export OMP_NUM_THREADS ?= 1

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/installed  ## Train CSD on StyleCross, compare it with its controls, write one HTML report (3 minutes)
	env -u OMP_NUM_THREADS $(BIN)/python -m stylesim.train experiment=stylecross_demo

# The embedded works in a style database, and pages about a few images of other contents and of a foreign style. They were
# chosen so that each verdict occurs; on all 1,992 images of other contents see experiments/attribution.
GALLERY := outputs/gallery
STYLESIM := env -u OMP_NUM_THREADS $(BIN)/stylesim
gallery: $(VENV)/installed  ## Build a style database of the embedded images, search and attribute a few others (1 minute)
	rm -rf $(GALLERY)/queries $(GALLERY)/searched $(GALLERY)/attributed && mkdir -p $(GALLERY)/queries
	tar -xzf data/stylecross/unseen_contents/00000.tar.gz -C $(GALLERY)/queries noto-v1_1f3c9.webp \
	  pixelarticons_icon-monitor.webp icon-park_icon-lamp.webp twemoji_1f415.webp
	tar -xzf data/stylecross/unseen_styles/00000.tar.gz -C $(GALLERY)/queries carbon_icon-notification.webp
	$(STYLESIM) ingest db=$(GALLERY)/works.db images=data/stylecross/train model=frozen_lite0
	$(STYLESIM) search db=$(GALLERY)/works.db queries=$(GALLERY)/queries model=frozen_lite0 hydra.run.dir=$(GALLERY)/searched
	$(STYLESIM) attribute queries=$(GALLERY)/queries gallery=$(GALLERY)/works.db label='set:*' model=frozen_lite0 \
	  '~model@copy_encoder' hydra.run.dir=$(GALLERY)/attributed
	@echo "Pages: $(GALLERY)/searched/search.html and $(GALLERY)/attributed/attribution.html"
	@echo "To drop images of your own on a page: $(BIN)/stylesim app gallery=$(GALLERY)/works.db model=frozen_lite0"

# The images, the captions and the faults depend on the seed. Every step continues where it was stopped.
SEED ?= 2
MINI := outputs/laion_mini/$(SEED)
laion-mini: $(VENV)/installed  ## Curate a small corpus with planted faults, check each stage, train on the rest (6 minutes)
	test -d $(MINI)/corpus || $(BIN)/python experiments/laion_mini/make_corpus.py --seed $(SEED) --out $(MINI)/corpus
	test -f $(MINI)/copies/metrics.json || env -u OMP_NUM_THREADS $(BIN)/python -m stylesim.train experiment=laion_mini_copies hydra.run.dir=$(MINI)/copies
	env -u OMP_NUM_THREADS $(BIN)/python -m stylesim.curate source=img2dataset source.path=$(MINI)/corpus/images out=$(MINI)/work \
	  filter.max_tag_images=1000 filter.min_tag_images=10 filter.min_size=48 filter.min_aesthetic=5.5 \
	  deduplicate.checkpoint=$(MINI)/copies/checkpoints/last.safetensors deduplicate.whiten=128 deduplicate.threshold=0.77 \
	  +deduplicate.evaluation.unseen_contents=data/stylecross/unseen_contents \
	  +deduplicate.evaluation.unseen_styles=data/stylecross/unseen_styles \
	  shard.query_artists=19 shard.query_images=5
	$(BIN)/python experiments/laion_mini/check.py --corpus $(MINI)/corpus --work $(MINI)/work
	env -u OMP_NUM_THREADS $(BIN)/python -m stylesim.train experiment=laion_mini data.root=$(MINI)/work/5-shards/train hydra.run.dir=$(MINI)/train
	@echo "Results of each stage: $(MINI)/work/check.md. Results of the training: $(MINI)/train/report.html"

test: $(VENV)/installed  ## Run the tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: $(VENV)/installed  ## Run the quick tests (under two minutes on two cores)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

check: $(VENV)/installed  ## Format and lint (ruff), check types (pyright) and layers (import-linter)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

bench: $(VENV)/installed  ## Measure the loader and the training step on this machine
	env -u OMP_NUM_THREADS $(BIN)/python benchmarks/loader.py
	env -u OMP_NUM_THREADS $(BIN)/python benchmarks/step.py
	env -u OMP_NUM_THREADS $(BIN)/python benchmarks/search.py

docs: $(VENV)/installed  ## Build the documentation site in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "open site/index.html"

build: $(VENV)/installed  ## Build the wheel and the source archive in dist/
	$(BIN)/python -m hatchling build

clean:  ## Remove the environment and the files that tools create (not outputs/)
	rm -rf $(VENV) site dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis

# An empty file whose date says when the environment was made: after a change of the dependencies, it is made again.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "stylesim needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip uv
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --compile-bytecode --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@
