PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.14.1 torchvision==0.29.1
READY := $(VENV)/ready

unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup run test test-fast lint bench dashboard docs wheel clean

help:  ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## Make .venv and install ganrun into it

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile $(TORCH) -e '.[dev]'
	$(BIN)/python -c 'import ganrun.commands.train'  # compiles only the modules that are used, a tenth of all
	@touch $@

run: setup  ## Train the heights GAN, or another job, as in: make run ARGS="data=digits"
	$(BIN)/ganrun $(or $(ARGS),experiment=heights)

test: setup  ## Run all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: setup  ## Run the fast tests, in less than a minute
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

lint: setup  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup  ## Measure speed, memory and quality, and save the results in benchmarks/
	$(BIN)/python benchmarks/heights.py
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/eager.py

dashboard: setup  ## Show outputs/ in TensorBoard, at http://127.0.0.1:6006
	$(BIN)/tensorboard --logdir outputs --host 127.0.0.1

docs: setup  ## Generate docs/options.md from conf/
	$(BIN)/python docs/make_options.py

wheel: setup  ## Build the wheel into dist/
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

clean:  ## Remove build files and caches, but no runs
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache
