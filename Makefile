# make install      create .venv with the versions of constraints.txt and install fastdiff editable, with its extension
# make demo         draw a grid of garments from the shipped model: out/demo.png
# make test         the quick tests
# make test-slow    all tests, including those marked slow
# make test-triton  the Triton kernels compiled ahead of time by the oldest triton that is allowed
# make test-asan    random calls of every op, public and raw, on an extension built with the address sanitizer
# make check        ruff, format, types, import layers, C++ format
# make format       apply what check asks for, where a tool can
# make bench        the measurements of benchmarks/, printed and stored as JSON, with the pages made from them
# make bench-quality   image quality of the shipped model against evaluations and seconds
# make cuda-build   build the package against a CUDA build of torch, in a venv of its own (5 GB; needs nvcc, no GPU)
# make clean        remove what was built, except .venv
# pip reads its usual PIP_* variables; PYTHON=python3.12 chooses another interpreter for a new .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
CXX_FILES = $(shell git ls-files 'csrc/*.h' 'csrc/*.cuh' 'csrc/*.cpp' 'csrc/*.cu' 2>/dev/null)
BUILD_INPUTS := $(wildcard setup.py pyproject.toml csrc/* csrc/*/* csrc/*/*/*)

.PHONY: install demo test test-slow test-triton test-asan check format bench bench-quality clean cuda-build help row.h
.DEFAULT_GOAL := help

help:
	@sed -n '/^$$/q; s/^# //p' Makefile

install: $(VENV)/.installed

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch first, and alone: the extension builds against it, and a range would admit another build of torch.
$(VENV)/.torch: constraints.txt | $(VENV)/bin/python
	$(PIP) -c constraints.txt pip setuptools wheel ninja numpy "$$(grep '^torch==' constraints.txt)"
	@touch $@

$(VENV)/.installed: $(BUILD_INPUTS) $(VENV)/.torch
	$(PIP) -c constraints.txt --no-build-isolation -e '.[dev]'
	-$(PIP) -c constraints.txt --no-deps k-diffusion
	@touch $@

demo: install
	@mkdir -p out
	$(BIN)/fastdiff sample --model fashion --num 64 --steps 50 --labels 0-9 --guidance 1.5 --seed 0 --out out/demo.png

# The libraries that tests compare with must be installed: after `make install`, no test is skipped for lack of one.
test test-slow: export FASTDIFF_REQUIRE_DEV = 1
# In processes of one thread each: most tests use no more, and those of ops and engine ask for two. A worker that is
# done takes over tests of the other. WORKERS=0 is one process, which a debugger needs.
WORKERS ?= 2
test: install
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist worksteal

test-slow: install
	$(BIN)/python -m pytest

# Triton is young: what the newest compiles an older one may refuse, such as the one that torch 2.11 brings.
TRITON := $(shell sed -n 's/^triton = \["triton>=\(.*\)"\]/\1.0/p' pyproject.toml)
test-triton: export FASTDIFF_REQUIRE_DEV = 1
OLDEST := PYTHONPATH=build/triton-$(TRITON) TRITON_CACHE_DIR=build/triton-$(TRITON)/cache OMP_NUM_THREADS=1
test-triton: install
	test -d build/triton-$(TRITON)/triton || $(PIP) --no-deps --target build/triton-$(TRITON) triton==$(TRITON)
	$(OLDEST) $(BIN)/python -c "import triton; assert triton.__version__ == '$(TRITON)', triton.__version__"
	$(OLDEST) $(BIN)/python -m pytest -q -m "not slow" -n $(WORKERS) --dist worksteal $(filter-out %traffic.py,$(wildcard tests/ops/test_triton_*.py))

# Builds the extension with sanitizers in a folder of its own. torch's CPU allocator uses malloc, so every access outside
# a tensor's memory is seen. CALLS=10000 for the full number.
ASAN := build/asan
CALLS ?= 500
ASAN_FLAGS := -fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined -g1
ASAN_RUN = LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 PYTHONPATH=$(ASAN)/lib $(BIN)/python
test-asan: install
	CFLAGS="$(ASAN_FLAGS)" FASTDIFF_REQUIRE_EXT=1 $(BIN)/python setup.py -q build --build-base $(ASAN)/tmp --build-lib $(ASAN)/lib
	for op in $$($(BIN)/python -c "from fastdiff.ops import dispatch; dispatch.load(); print(*sorted(dispatch.registered()))"); do \
	  $(ASAN_RUN) tests/ops/fuzz.py $$op $(CALLS) 0 || exit 1; done
	$(ASAN_RUN) tests/ops/fuzz_raw.py $(CALLS) 0

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(if $(CXX_FILES),$(BIN)/clang-format --dry-run -Werror $(CXX_FILES))

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(if $(CXX_FILES),$(BIN)/clang-format -i $(CXX_FILES))

# Regenerates the columns of a step table's row for C++ and Triton.
row.h: install
	$(BIN)/python -c "from fastdiff.ops.row import cpp_header; print(cpp_header(), end='')" > csrc/include/fastdiff/row.h
	$(BIN)/python -c "from fastdiff.ops.row import triton_columns; print(triton_columns(), end='')" > kernels/triton/columns.py

# Builds from a copy of the sources, so that the extension in this folder stays as it is.
CUDA_VENV ?= .venv-cuda
CUDA_TORCH ?= 2.14.1
cuda-build:
	test -x $(CUDA_VENV)/bin/python || $(PYTHON) -m venv $(CUDA_VENV)
	$(CUDA_VENV)/bin/python -m pip install -q torch==$(CUDA_TORCH) numpy "setuptools>=77" wheel ninja
	rm -rf $(CUDA_VENV)/source && mkdir $(CUDA_VENV)/source
	git ls-files -z | tar --null -cf - -T - | tar -xf - -C $(CUDA_VENV)/source
	FASTDIFF_REQUIRE_EXT=1 $(CUDA_VENV)/bin/python -m pip install -v --no-build-isolation --force-reinstall --no-deps \
	  $(CUDA_VENV)/source
	$(CUDA_VENV)/bin/python -m pip install -q einops safetensors tqdm tyro pillow
	cd / && $(abspath $(CUDA_VENV))/bin/python -c "import fastdiff.ops.extension as e; assert not e.CUDA_MISSING, e.CUDA_MISSING"
	cd / && $(abspath $(CUDA_VENV))/bin/fastdiff info

# Rivals. OpenVINO 2025.3 works with our numpy, though it asks for an older one; newer releases are slower (docs/benchmarks.md).
$(VENV)/.rivals: $(VENV)/.installed
	$(PIP) -c constraints.txt --no-build-isolation -e '.[dev,bench]'
	$(PIP) -c constraints.txt --no-deps openvino openvino-telemetry denoising-diffusion-pytorch ema-pytorch
	@touch $@

# Each file runs in its own process, at most 40 minutes in all. BENCH="--rounds 1" tries everything and stores nothing.
BENCH ?=
bench: $(VENV)/.rivals
	$(BIN)/python -m benchmarks.suite $(BENCH)

# Rows that exist already (same weights, images, seed) are not drawn again; all of them take most of an hour.
# QUALITY="--num 20 --results out/quality" tries everything and stores it apart.
QUALITY ?=
bench-quality: install
	$(BIN)/python -m benchmarks.solver_quality $(QUALITY)
	$(BIN)/python -m benchmarks.fashion_eval $(QUALITY)
	$(BIN)/python -m benchmarks.report

clean:
	rm -rf build dist out fastdiff/*.so *.egg-info .mypy_cache .ruff_cache .pytest_cache $(VENV)/.installed
