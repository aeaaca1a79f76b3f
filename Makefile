PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(wildcard csrc/*.py csrc/*/*)

.PHONY: test test-sanitize lint bench demo docs clean
test: lint
	$(BIN)/python -m pytest -q tests

# The tests of the CPU kernels, on a build of their own under AddressSanitizer and UndefinedBehaviorSanitizer.
SANITIZED := build/sanitize
test-sanitize: $(VENV)/ready
	ABPN_FAST_SANITIZE=1 ABPN_FAST_BUILD_CUDA=0 $(BIN)/python setup.py -q build --build-base $(SANITIZED) --build-lib $(SANITIZED)/lib
	ln -sfn ../../../tests ../../../bench $(SANITIZED)/lib
	cd $(SANITIZED)/lib && LD_PRELOAD=$$($(or $(CXX),c++) -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 \
		../../../$(BIN)/python -m pytest -q -p no:cacheprovider tests/backends/test_cpu.py tests/backends/test_cpu_gated_conv.py \
		tests/backends/test_cpu_gradients.py tests/test_strips.py tests/test_sparse.py

lint: $(VENV)/native
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The CPU suites that have no result yet; `make bench AGAIN=--again` measures all of them anew.
bench: $(VENV)/native $(VENV)/peers
	$(BIN)/python -m bench $(AGAIN)

demo: $(VENV)/native
	$(BIN)/python -m examples.demo

# Every public docstring as pages, build/docs/index.html. pdoc looks for the types of a class where it is imported.
docs: $(VENV)/native
	$(BIN)/python -W "ignore:Error parsing type annotation" -m pdoc --docformat google --no-show-source -o build/docs \
		abpn_fast abpn_fast.photo abpn_fast.training

$(VENV)/ready: requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "abpn_fast needs Python 3.10 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(VENV)/peers: $(VENV)/ready requirements-bench.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	touch $@

$(VENV)/native: $(VENV)/ready pyproject.toml setup.py $(NATIVE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	touch $@

clean:
	rm -rf $(VENV) build demo *.egg-info abpn_fast/*.so
