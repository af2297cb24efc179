# Everything the project needs, from a fresh machine: `make demo` and `make test` each make .venv first if it is not there.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test check bench clean

setup: .venv/.ready

.venv/.ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e ".[dev]"
	# Only their weights are used, none of what they need to run.
	$(BIN)/pip install --quiet --no-deps resemblyzer==0.1.4 openwakeword==0.5.1
	touch .venv/.ready

demo: setup
	$(BIN)/python scripts/demo.py

test: setup
	$(BIN)/python -m pytest

check: setup
	scripts/check

bench: setup
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf .venv demo build dist
