# prottune: every target does all the set-up that it needs. `make help` lists them.
SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CHECKOV := .venv-checkov
RUNS ?= runs
UV_VERSION := 0.13.9

# The real data. This is the address that the DeepLoc authors publish; it has not been verified here.
DEEPLOC_FASTA ?= https://services.healthtech.dtu.dk/services/DeepLoc-1.0/deeploc_data.fasta

.PHONY: help demo test check deeploc integration api-server faults compile images bench lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): $(wildcard requirements/*) pyproject.toml
	@requirements/set-up.sh $(VENV)
	@touch $@

demo: $(READY) ## set everything up, run the whole pipeline here on synthetic proteins, say what to open
	@$(BIN)/python -m pipelines.demo --runs $(RUNS)

test: $(READY) ## set everything up and pass the tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses=auto --dist=loadfile --no-loadscope-reorder

check: $(READY) ## ruff, mypy (strict), import rules, sizes
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache | tail -n 12
	@$(BIN)/python tests/check_sizes.py

deeploc: $(READY) ## the whole pipeline on the real DeepLoc proteins (DEEPLOC_FASTA=file or address)
	@$(BIN)/python -m pipelines run --runs $(RUNS)/deeploc --source "$(DEEPLOC_FASTA)" --base-model small \
	  --max-residues 510 --learning-rate 3e-4 --head-learning-rate 5e-4 --epochs 8 --patience 0 \
	  --class-weights sqrt --num-processes 2

integration: $(READY) ## the real servers, faults and endings (minutes)
	@$(MAKE) --no-print-directory $(CHECKOV)/.ready || echo "checkov cannot be installed: its tests are not run here" >&2
	@$(BIN)/python -m pytest -q -m integration

$(CHECKOV)/.ready: requirements/checkov.txt requirements/pip.txt requirements/set-up-checkov.sh
	@requirements/set-up-checkov.sh $(CHECKOV)

api-server: ## build a real API server for custom resources, for `make integration` (once; minutes, 5 GB)
	@tests/integration/api_server_build.sh

FAULTS_KILLS ?= 300
FAULTS_SEED ?=
faults: $(READY) ## kill a training 300 times at random (FAULTS_KILLS, FAULTS_SEED) and compare its end
	@FAULTS_KILLS=$(FAULTS_KILLS) FAULTS_SEED=$(FAULTS_SEED) $(BIN)/python -m pytest -q -m integration tests/faults

compile: $(READY) ## rewrite pipelines/compiled from the graphs, and their picture in docs
	@$(BIN)/python -m pipelines compile
	@$(BIN)/python tests/graph_picture.py

images: ## build the images light and torch (REGISTRY=..., TORCH=cpu or cuda; components/images.sh has the rest)
	@components/images.sh

bench: $(READY) ## benchmarks, each beside a peer in the same run (BENCH="--quick" is shorter)
	@$(BIN)/python -m pip --disable-pip-version-check --quiet install --require-hashes -c requirements/lock.txt -r requirements/peers.in
	@$(BIN)/python -m benchmarks $(BENCH)

lock: ## rewrite requirements/lock.txt and checkov.txt (needs uv)
	@command -v uv >/dev/null || { echo "lock: needs uv $(UV_VERSION): pip install uv==$(UV_VERSION)" >&2; exit 2; }
	@cd requirements && uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-annotate light.in torch.in pipelines.in dev.in peers.in --output-file lock.txt
	@cd requirements && uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-annotate checkov.in --output-file checkov.txt

clean: ## remove the environment and all caches; runs/ stays
	@rm -rf $(VENV) $(CHECKOV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info src/*.egg-info
