# Everything a person does here. Every target sets .venv up first; when that is done, in a moment.

# One thread a process: two spinning OpenMP threads on busy cores make a small network 30 times dearer.
export OMP_NUM_THREADS ?= 1
# Processes that run tests.
WORKERS ?= 2

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -n $(WORKERS)

.PHONY: help setup demo test test-slow test-fast check format type bench lock clean

help:
	@echo "make demo       evaluation episodes, a table, films: the main job in minutes"
	@echo "make test       all tests but the slow ones      make test-slow  the slow ones"
	@echo "make test-fast  a quick selection                make check      all that must pass"
	@echo "make format     reformat, mend what ruff can     make type       mypy and pyright"
	@echo "make bench      every benchmark                  make lock       pin what is installed"
	@echo "make setup      only the environment             make clean      remove what was built"

setup:
	@tools/setup.sh

demo: setup
	$(BIN)/decisive demo

# Tests of nodes measure times between processes: one after the other, when the rest is done.
test: setup
	$(PYTEST) -m "not slow and not ros"
	$(BIN)/python -m pytest -m "ros and not slow"; status=$$?; [ $$status = 5 ] || exit $$status

test-slow: setup
	$(PYTEST) -m "slow and not ros"
	$(BIN)/python -m pytest -m "slow and ros"; status=$$?; [ $$status = 5 ] || exit $$status

test-fast: setup
	$(PYTEST) -m "not slow and not learning and not ros"

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(MAKE) --no-print-directory type
	$(MAKE) --no-print-directory test-fast

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

type: setup
	$(BIN)/mypy
	$(BIN)/pyright

bench: setup
	@for file in benchmarks/*.py; do \
		[ -e "$$file" ] || { echo "no benchmarks yet"; exit 0; }; \
		echo "== $$file"; $(BIN)/python "$$file" || exit 1; \
	done

lock: setup
	$(BIN)/python tools/lock.py

# Keeps .venv and .wheels, which took long to build, and outputs, which are yours.
clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
