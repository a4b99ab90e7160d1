# make demo   the whole path on a simulated pump; no hardware, no torch
# make test   lint, types, architecture, tests
PYTHON ?= python3
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint examples accuracy importers qemu-board fuzz-firmware link-throughput \
  link-soak test-pythons clean
.SECONDARY:  # keep the environments

demo: .venv-demo/ready
	.venv-demo/bin/edge-gru demo

test: lint
	.venv/bin/python -m pytest

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

# Streams the test recordings in EDGE_GRU_DATA through a pty and prints what INT8 costs.
examples: .venv/ready
	.venv/bin/python -m quantization.examples

# What every recipe costs, beside other tools: trains its networks once, then prints the tables.
accuracy: .venv/ready
	.venv/bin/python -m quantization.benchmark.accuracy

# Every kind of model that the importers take, against itself over 1,000 steps from a random state.
importers: .venv/ready
	.venv/bin/python tests/quantization/importers/matrix.py

# The example firmware on an emulated board, ten minutes at 1 kHz; and the library's fuzzer, as long.
BOARD_S ?= 600
FIRMWARE_TESTS = .venv/bin/python -m pytest tests/firmware_bridge/firmware

qemu-board: .venv/ready
	EDGE_GRU_QEMU_S=$(BOARD_S) $(FIRMWARE_TESTS)/test_qemu.py

fuzz-firmware: .venv/ready
	EDGE_GRU_FUZZ_S=$(BOARD_S) $(FIRMWARE_TESTS)/test_builds.py -k no_input_breaks_it

# What reading a serial line costs, beside what people use; with pymavlink installed, that too.
link-throughput: .venv/ready
	.venv/bin/python tests/firmware_bridge/throughput.py

# Ten million spoilt frames, and a day of a stream in minutes.
link-soak: .venv/ready
	.venv/bin/python tests/firmware_bridge/soak.py

# The suites that need no torch, on every other Python that is here.
PYTHONS ?= 3.10 3.12 3.13
PYTHONS_HERE = $(strip $(foreach v,$(PYTHONS),$(if $(shell python$(v) --version 2>/dev/null),$(v))))

test-pythons: $(addprefix test-python-,$(PYTHONS_HERE))
	@echo "tested on Python $(or $(PYTHONS_HERE),none) of $(PYTHONS)"

test-python-%: .venv-%/ready
	.venv-$*/bin/python -m pytest -q -n 2 -m "not torch and not slow"

.venv-%/ready: pyproject.toml
	python$* -m venv .venv-$*
	.venv-$*/bin/python $(PIP_INSTALL) -e '.[test]'
	touch $@

.venv-demo/ready: pyproject.toml
	$(PYTHON) -m venv .venv-demo
	.venv-demo/bin/python $(PIP_INSTALL) -e '.[quantize]'
	touch $@

.venv/ready: pyproject.toml tests/constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python $(PIP_INSTALL) -c tests/constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .venv-* build dist *.egg-info runs .pytest_cache .mypy_cache .ruff_cache
