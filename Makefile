# Everything the project needs, from a fresh machine: `make demo` makes .venv-light, `make test` .venv, if it is not there.
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

# What `pip install .` brings is enough for the demonstration, in an environment of its own.
demo: .venv-light/.ready
	.venv-light/bin/python scripts/demo.py

.venv-light/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-light
	# Byte-compiled when first imported: half the time of the installation is compiling what is never run.
	.venv-light/bin/pip install --quiet --disable-pip-version-check --no-compile -e .
	touch .venv-light/.ready

test: setup
	$(BIN)/python -m pytest

check: setup
	scripts/check

bench: setup
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf .venv .venv-light demo build dist
