# Everything sets itself up: a fresh clone needs Python >= 3.10, make and the package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test lint bench results clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    both tasks on real images in ten minutes; prints two tables, writes two reports"
	@echo "make test    lint, types, tests (under 8 minutes on two cores)"
	@echo "make bench   speed against its floor, as ratios"
	@echo "make results the two main recipes of docs/results.md (an hour or two on two cores)"

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
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile tests src  # one thread a worker: two would fight

bench: $(READY)
	$(BIN)/python benchmarks/speed.py

results: $(READY)
	$(BIN)/cgankd run fashion --out runs/fashion
	$(BIN)/cgankd run rotated-fashion --out runs/rotated-fashion

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
