PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(wildcard csrc/*.py csrc/*/*)

.PHONY: test lint bench demo clean
test: lint
	$(BIN)/python -m pytest -q tests

lint: $(VENV)/native
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/native
	$(BIN)/python -m pytest bench

demo: $(VENV)/native
	$(BIN)/python -m examples.demo

$(VENV)/ready: requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "abpn_fast needs Python 3.10 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(VENV)/native: $(VENV)/ready pyproject.toml setup.py $(NATIVE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	touch $@

clean:
	rm -rf $(VENV) build demo *.egg-info abpn_fast/*.so
