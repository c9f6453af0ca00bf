# What a person runs. `make demo` and `make test` work on a fresh Debian or Ubuntu with python3 (3.11 or newer), python3-venv and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SCANS := .cache/demo-scans
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' medgan/__init__.py)

.DEFAULT_GOAL := help
.PHONY: demo test lint bench image clean help

help:
	@echo "make demo    the whole way on real CT slices: scans to report, about ten minutes on two cores"
	@echo "make test    install what the tests need and run them"
	@echo "make lint    ruff, mypy and the import rules"
	@echo "make bench   measure speed on this machine's CPU: JSON lines, under an hour in all"
	@echo "make image   build the container image; TORCH_OPTIONS=... are further words for pip's install of torch (a CPU index)"

$(VENV)/.base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/.base
	$(BIN)/python scripts/fetch_scans.py $(SCANS)
	$(BIN)/medgan weights fetch inception-2015-12-05
	$(BIN)/medgan demo --scans $(SCANS) --out demo

test: $(VENV)/.dev
	$(BIN)/medgan weights fetch
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not docker" --numprocesses auto --maxprocesses 8 --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The machine should do nothing else meanwhile. benchmarks/RESULTS.md keeps the rows.
bench: $(VENV)/.dev
	$(BIN)/medgan weights fetch inception-2015-12-05
	@for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

image:
	docker build --build-arg TORCH_OPTIONS="$(TORCH_OPTIONS)" --build-arg MEDGAN_COMMIT=$$(git rev-parse HEAD) \
		--build-arg MEDGAN_CREATED=$$(git log -1 --format=%cI) -t medgan:$(VERSION) .

clean:
	rm -rf $(VENV) .cache demo
