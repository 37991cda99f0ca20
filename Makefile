# Each target sets up .venv first; a fresh clone needs Python >= 3.10, make and the package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test lint bench results clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    both tasks on real images, ten minutes on two cores: two tables, two reports"
	@echo "make test    lint, types and tests, under 8 minutes on two cores"
	@echo "make lint    lint and types alone"
	@echo "make bench   speed, as ratios to a simple version in the same run"
	@echo "make results the two main recipes of docs/results.md, one to two hours on two cores"
	@echo "make clean   remove .venv and build files"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	touch $(READY)

demo: $(READY)
	$(BIN)/cgankd run fashion-demo --out runs/fashion-demo
	$(BIN)/cgankd run rotated-fashion-demo --out runs/rotated-fashion-demo

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder tests src  # one thread for each worker, because two workers share two cores

bench: $(READY)
	$(BIN)/python benchmarks/speed.py

results: $(READY)
	$(BIN)/cgankd run fashion --out runs/fashion
	$(BIN)/cgankd run rotated-fashion --out runs/rotated-fashion

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
