# Each target sets up .venv first; a fresh clone needs Python >= 3.10, make and the package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PINS := constraints.txt
EXTRAS := dev

.PHONY: help demo test quick-tests test-lowest test-long kill-test fuzz lint bench bench-memory results docs docs-test dist sbom \
  audit dist-test clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    both tasks on real images, about a quarter of an hour on two cores: two tables, two reports"
	@echo "make test    lint, types and tests, under 8 minutes on two cores"
	@echo "make test-long  kills in every stage, full disks, stopped runs, notebooks and other long tests, some minutes"
	@echo "make test-lowest  the tests with the lowest versions of dependencies, in build/lowest; PYTHON=python3.11"
	@echo "make kill-test  50 kills at random moments, after which all runs end with the same numbers, half an hour"
	@echo "make fuzz    random inputs for every reader, FUZZ_SECONDS (600) each; a skipped test has found nothing"
	@echo "make lint    lint and types alone"
	@echo "make bench   speed, as ratios to a simple version in the same run, and the time that commands take to start"
	@echo "make bench-memory  resident memory for 20,000, 200,000 and 1,000,000 generated images, about two minutes, Linux"
	@echo "make results the two main recipes of docs/results.md, one to two hours on two cores"
	@echo "make docs    the documentation as a site in site/, from docs/ and from the code"
	@echo "make docs-test  run the tutorial's commands in an empty folder, about 15 minutes on two cores"
	@echo "make dist    the wheel and the sdist, in dist/"
	@echo "make sbom    dist/cgankd.cdx.json: everything that comes with the wheel, with versions and licences (CycloneDX)"
	@echo "make audit   known vulnerabilities of what is installed here; asks the package index"
	@echo "make dist-test  install both into empty environments and run them: DIST_PYTHONS='python3.10 python3.13'"
	@echo "make clean   remove .venv and build files"

# Python compiles what is imported, once; all of it would take a minute. A process that may not keep what it compiled
# spends 5 seconds on torch and 13 on the whole command, and the tests start dozens.
unexport PYTHONDONTWRITEBYTECODE

$(READY): pyproject.toml $(PINS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile torch -c $(PINS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -e '.[$(EXTRAS)]' -c $(PINS)
	touch $(READY)

demo: $(READY)
	$(BIN)/cgankd run fashion-demo --out runs/fashion-demo
	$(BIN)/cgankd run rotated-fashion-demo --out runs/rotated-fashion-demo

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# One thread for each worker, because two workers share two cores. Lint uses one core, so it runs beside the tests.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test: $(READY)
	$(MAKE) --no-print-directory -j 2 lint quick-tests

quick-tests: $(READY)
	$(PYTEST) tests src

test-lowest:
	$(MAKE) --no-print-directory quick-tests VENV=build/lowest PINS=constraints-lowest.txt EXTRAS=dev,slurm

test-long: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -e '.[notebooks]' -c constraints.txt
	$(PYTEST) -m long tests

kill-test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m kill -s tests/e2e/test_random_kills.py

FUZZ_SECONDS ?= 600
fuzz: $(READY)
	FUZZ_SECONDS=$(FUZZ_SECONDS) OMP_NUM_THREADS=1 $(BIN)/pytest -rs tests/data/test_any_data.py tests/data/test_any_file.py

bench: $(READY)
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/synthesis.py
	$(BIN)/python benchmarks/start.py

bench-memory: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/memory.py 20000 200000 1000000
	$(BIN)/python benchmarks/parts.py 100

results: $(READY)
	$(BIN)/cgankd run fashion "compare.methods=[nokd,nokd_longer,kd,cgan,cgan_kd]" runtime.threads=1 --out runs/fashion
	$(BIN)/cgankd run rotated-fashion "compare.methods=[nokd,nokd_longer,augment,kd,cgan,cgan_kd]" runtime.threads=1 \
	  --out runs/rotated-fashion

docs: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]' -c constraints.txt
	$(BIN)/python tools/write_reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-test: $(READY)
	$(BIN)/python tools/run_tutorial.py

dist: $(READY)
	rm -rf dist
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dist]' -c constraints.txt
	$(BIN)/python -m build

sbom: dist
	rm -rf build/runtime
	$(PYTHON) -m venv build/runtime
	build/runtime/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl -c constraints.txt
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
	  --output-file dist/cgankd.cdx.json build/runtime

audit: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dist]' -c constraints.txt
	$(BIN)/pip-audit --skip-editable

DIST_PYTHONS ?= $(PYTHON)
dist-test: dist
	$(BIN)/python tools/try_distribution.py $(DIST_PYTHONS)

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache
