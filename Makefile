# make demo   the whole path on a simulated pump; no hardware, no torch
# make test   lint, types, architecture, tests
PYTHON ?= python3
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint examples accuracy importers qemu-board fuzz-firmware link-throughput \
  link-soak boot-arm64 flash-boot deb-test container-test wheels-test tensorrt-parse tensorrt-signatures test-gpu \
  mutants test-pythons sbom clean
.PHONY: native native-vectors native-aarch64 native-arm64 native-sanitize bench-native bench
.SECONDARY:  # keep the environments

demo: .venv-demo/ready
	.venv-demo/bin/edge-gru demo

test: lint
	.venv/bin/python -m pytest -n auto

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

# Every step graph in NVIDIA's ONNX parser and builder, on the CPU: their licence, 170 MB, x86-64.
tensorrt-parse: .venv/ready
	.venv/bin/python tests/quantization/tensorrt/check_graphs.py
	.venv/bin/python -m pytest tests/quantization/tensorrt

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

# As root: deploy/ on an emulated arm64 Debian with an emulated USB adapter; install, run, hot-plug.
boot-arm64: .venv/ready
	.venv/bin/python -m tests.boot.boot_arm64

# As root: packages on Debian 12 and 13, amd64 and emulated arm64, each in a chroot: installed by dpkg
# and over ssh, run, given models, upgraded, removed and purged. Two hours; DEB_TEST names some.
DEB_TEST ?=
deb-test: .venv/ready
	.venv/bin/python -m tests.deploy.debs $(DEB_TEST)

# As root, with Debian's docker.io and docker-compose: the image, built and run as compose.yaml says.
CONTAINER_TEST ?=
container-test: .venv/ready
	.venv/bin/python -m tests.deploy.containers $(CONTAINER_TEST)

# As root: `ship l4t`, a boot of what it made on an emulated arm64 machine, and power cuts in updates.
CUTS ?= 20
MACHINES ?= 2
flash-boot: .venv/ready
	.venv/bin/python -m tests.boot.flash_boot --cuts $(CUTS) --machines $(MACHINES)

# From the package index: the wheels of every Python that a board may have.
wheels-test: .venv/ready
	EDGE_GRU_TEST_INDEX=1 .venv/bin/python -m pytest -q -s tests/edge_gru/shipping/test_wheels.py

# What the TensorRT engine calls, against NVIDIA's own bindings and runtimes: downloads them.
TENSORRT_VERSIONS ?= 10.3.0 10.13.3.9 10.16.1.11 11.0.0.114 11.4.0.106

tensorrt-signatures: .venv/ready
	EDGE_GRU_TENSORRT_VERSIONS="$(TENSORRT_VERSIONS)" \
	    .venv/bin/python -m pytest tests/tensorrt_bindings -v

# The suites over all engines on a board's own TensorRT instead of a fake.
test-gpu: .venv/ready
	EDGE_GRU_REAL_GPU=1 .venv/bin/python -m pytest -k "tensorrt or cuda" \
	    tests/edge_gru/engines/test_contract.py tests/edge_gru/engines/test_golden.py

# Breaks the TensorRT engine in every small way, and lists what no test sees: an hour.
# MUTATE names some of its modules, as in MUTATE="cache folder".
MUTATE ?=

mutants: .venv/ready
	PYTHONPATH=. .venv/bin/python tests/edge_gru/engines/tensorrt/mutants.py $(MUTATE)

# The suites that need no torch, on every other Python that is here.
PYTHONS ?= 3.10 3.12 3.13
SUITES ?= tests
PYTHONS_HERE = $(strip $(foreach v,$(PYTHONS),$(if $(shell python$(v) --version 2>/dev/null),$(v))))

test-pythons: $(addprefix test-python-,$(PYTHONS_HERE))
	@echo "tested on Python $(or $(PYTHONS_HERE),none) of $(PYTHONS)"

test-python-%: .venv-%/ready
	.venv-$*/bin/python -m pytest -q -n 2 -m "not torch and not slow" $(SUITES)

# What an installation has in it: packages, versions, licences, as CycloneDX.
sbom: .venv-sbom/ready
	mkdir -p dist
	.venv-sbom/bin/python deploy/sbom.py -o dist/edge-gru.cdx.json

.venv-sbom/ready: pyproject.toml
	$(PYTHON) -m venv --without-pip .venv-sbom
	$(PYTHON) -m pip --python .venv-sbom/bin/python install --quiet '.[onnxruntime,signed]'
	touch $@

# The C part of the native engine: build it in place, for the environment of the tests.
SETUP := .venv/bin/python -c 'from setuptools import setup; setup()' --quiet
native: .venv/ready
	$(SETUP) build_ext --inplace

NATIVE := edge_gru/native/src
NATIVE_C := $(filter-out %/module.c %/build.c %/arrays.c,$(wildcard $(NATIVE)/*.c))
NATIVE_FLAGS := -std=c99 -O3 -ffp-contract=off -Wall -Wextra -Wpedantic -Werror -I$(NATIVE)
VECTORS_C := tests/edge_gru/native/vectors.c $(NATIVE_C)
VECTORS_FLAGS := $(NATIVE_FLAGS) -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc
N_VECTOR_STEPS ?= 10000

build/vectors-%: $(VECTORS_C) $(wildcard $(NATIVE)/*.h)
	mkdir -p build
	$* $(VECTORS_FLAGS) $(if $(filter aarch64%,$*),-static) $(VECTORS_C) -lm -o $@

# Those that run on this machine, beside the portable one.
FASTER_KERNELS := .venv/bin/python -c 'from edge_gru.native import KERNELS; print(*KERNELS[:-1])'

# Every cell in every form on every kernel of this machine, by two compilers: the same bits.
native-vectors: native build/vectors-gcc build/vectors-clang
	for kernel in scalar $$($(FASTER_KERNELS)); do for compiler in gcc clang; do \
	    build/vectors-$$compiler $$kernel $(N_VECTOR_STEPS) >build/$$kernel-$$compiler.txt || exit 1; \
	    cmp build/scalar-gcc.txt build/$$kernel-$$compiler.txt || exit 1; done; done
	@echo "the same bits in $$(wc -l <build/scalar-gcc.txt) cases of $(N_VECTOR_STEPS) steps"

# The same on 64-bit Arm under emulation: needs gcc-aarch64-linux-gnu and qemu-user-static.
native-aarch64: build/vectors-gcc build/vectors-aarch64-linux-gnu-gcc
	build/vectors-gcc scalar $(N_VECTOR_STEPS) >build/scalar-gcc.txt
	for kernel in neon scalar; do qemu-aarch64-static build/vectors-aarch64-linux-gnu-gcc \
	    $$kernel $(N_VECTOR_STEPS) >build/$$kernel-aarch64.txt || exit 1; \
	    cmp build/scalar-gcc.txt build/$$kernel-aarch64.txt || exit 1; done
	@echo "the same bits on aarch64 in $$(wc -l <build/scalar-gcc.txt) cases of $(N_VECTOR_STEPS) steps"

# The package on 64-bit Arm: its wheel, compiled here, in Debian's Python there, under emulation. What
# streams predict is what they predict here, to the last bit, and every golden vector is reproduced.
ARM64 := build/arm64-python
ARM64_PYTHON := qemu-aarch64-static -L $(ARM64)/root -E PYTHONPATH=$(ARM64)/packages:. \
  $(ARM64)/root/usr/bin/python3.11
native-arm64: native
	rm -rf $(ARM64) && mkdir -p $(ARM64)
	mmdebstrap --quiet --variant=extract --architectures=arm64 --include=python3,libstdc++6 bookworm $(ARM64)/root
	EDGE_GRU_NATIVE=aarch64 .venv/bin/python $(PIP_INSTALL:install=wheel) --no-deps -w $(ARM64) .
	.venv/bin/python $(PIP_INSTALL) --target $(ARM64)/packages --only-binary=:all: \
	    --python-version 3.11 --platform linux_aarch64 $(foreach n,17 27 28 34 35,--platform manylinux_2_$n_aarch64) \
	    --platform manylinux2014_aarch64 $(ARM64)/edge_gru-*.whl
	.venv/bin/python tests/edge_gru/native/streams.py pack $(ARM64)/bundles
	.venv/bin/python tests/edge_gru/native/streams.py hash $(ARM64)/bundles $(N_VECTOR_STEPS) >$(ARM64)/here.txt
	$(ARM64_PYTHON) tests/edge_gru/native/streams.py hash $(ARM64)/bundles $(N_VECTOR_STEPS) >$(ARM64)/there.txt
	cmp $(ARM64)/here.txt $(ARM64)/there.txt
	@echo "the same bits on arm64 in $$(wc -l <$(ARM64)/here.txt) bundles of $(N_VECTOR_STEPS) steps"

EXTENSION_HEADERS := .venv/bin/python -c 'import sysconfig, numpy; \
  print("-I" + sysconfig.get_path("include"), "-I" + numpy.get_include())'
EXTENSION_SUFFIX := .venv/bin/python -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))'

# Addresses and undefined behaviour: the vectors, then the tests on an extension built for it.
# At this little optimisation GCC takes what loops fill for uninitialized.
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -g -O1 \
  -Wno-maybe-uninitialized
native-sanitize: native
	mkdir -p build && rm -rf build/sanitized && mkdir build/sanitized
	gcc $(VECTORS_FLAGS) $(SANITIZE) $(VECTORS_C) -lm -o build/vectors-sanitized
	for kernel in scalar $$($(FASTER_KERNELS)); do \
	    build/vectors-sanitized $$kernel 50 >/dev/null || exit 1; done
	cp -r pyproject.toml LICENSE README.md edge_gru firmware_bridge quantization tests build/sanitized
	find build/sanitized -name '*.so' -delete
	gcc -std=c99 -ffp-contract=off $(SANITIZE) -fPIC -shared $$($(EXTENSION_HEADERS)) $(NATIVE)/*.c -lm \
	    -o build/sanitized/edge_gru/native/_native$$($(EXTENSION_SUFFIX))
	cd build/sanitized && PYTHONPATH=. PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 \
	    LD_PRELOAD="$$(gcc -print-file-name=libasan.so)" \
	    ../../.venv/bin/python -m pytest tests/edge_gru/engines/test_native.py \
	    tests/edge_gru/engines/test_native_misuse.py -q -p no:cacheprovider

# RTNeural has no Python: RTNEURAL=FOLDER names a clone of it, and Eigen is Debian's libeigen3-dev.
RTNEURAL ?=
export EDGE_GRU_RTNEURAL := $(if $(RTNEURAL),$(CURDIR)/build/rtneural.so)
RTNEURAL_FLAGS := -std=c++17 -O3 -march=native -w -shared -fPIC -DRTNEURAL_USE_EIGEN=1 \
  -DRTNEURAL_DEFAULT_ALIGNMENT=32 -DEIGEN_STACK_ALLOCATION_LIMIT=0 -isystem /usr/include/eigen3

build/rtneural.so: quantization/benchmark/rtneural.cpp
	mkdir -p build
	g++ $(RTNEURAL_FLAGS) $(addprefix -I$(RTNEURAL)/,. RTNeural modules/json) $< -o $@

# A step beside the peers, which get an environment of their own: 20 minutes (BENCH=--quick: 2).
PEERS ?= ai-edge-litert ai-edge-quantizer litert-torch MNN openvino ncnn executorch
BENCH ?=
bench: .venv-bench/ready $(if $(RTNEURAL),build/rtneural.so)
	.venv-bench/bin/python -m quantization.benchmark.latency $(BENCH)

# Peers one by one: where one cannot be had, the table says so.
.venv-bench/ready: pyproject.toml tests/constraints.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python $(PIP_INSTALL) -c tests/constraints.txt -e '.[dev]'
	for peer in $(PEERS); do .venv-bench/bin/python $(PIP_INSTALL) $$peer || true; done
	touch $@

# Times beside the roof of this core.
bench-native: native build/roof build/steps.so $(if $(RTNEURAL),build/rtneural.so)
	.venv/bin/python -m quantization.benchmark.native build/roof build/steps.so
	$(if $(RTNEURAL),.venv/bin/python -m quantization.benchmark.against_rtneural build/steps.so)

build/steps.so: quantization/benchmark/steps.c $(NATIVE_C) $(wildcard $(NATIVE)/*.h)
	mkdir -p build
	gcc $(NATIVE_FLAGS) -fPIC -shared $(filter %.c,$^) -lm -o $@

build/roof: quantization/benchmark/roof.c
	mkdir -p build
	gcc -std=c99 -O3 -Wall -Wextra -Werror $< -o $@

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
	rm -rf .venv .venv-* .cache build dist *.egg-info runs .pytest_cache .mypy_cache .ruff_cache
