# make demo      set up, then compress, decompress and sample; images go to out/
# make test      set up, then run all tests (PYTEST_ARGS: more arguments)
# make test-runtime   the fast tests without PyTorch, as far as they do without
# make check     build, lint and the fast tests: run it before every commit
# make lint      ruff, mypy, clang-format, and clang-tidy if it is installed
# make wheel     source archive and wheel in build/wheel, tested in a fresh environment
# make cross     the core on aarch64 and on big-endian s390x, under QEMU (tests/cross.sh lists what it needs)
# make build     set up only: .venv with the compiled core and all dependencies
# make bench     all benchmarks, in one table (IMAGES=FOLDER; BENCH_ARGS: more arguments)
# make sanitize  the C++ tests, and the CUDA kernels run on the CPU, under the address and
#                undefined-behaviour sanitizers
# make fuzz      the fuzz targets for 10 minutes in all (needs Clang and atheris, see docs/FUZZING.md)
# make docs      the documentation as a site in build/site
# make clean     remove everything made by the above

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/built
INPUTS := pyproject.toml setup.py constraints.txt CMakeLists.txt $(shell find csrc -type f)

.PHONY: demo test test-runtime check bench build lint wheel cross docs sanitize fuzz clean

build: $(STAMP)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP): $(INPUTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs,lint,test]'
	touch $@

demo: $(STAMP)
	$(BIN)/vqcodec demo -o out

test: $(STAMP)
	$(BIN)/python -m pytest tests $(PYTEST_ARGS)

# Without PyTorch and whatever else only training and tests need: what users of `pip install vqcodec` have.
RUNTIME := .venv-runtime

$(RUNTIME)/done: $(STAMP) pyproject.toml
	$(PYTHON) -m venv $(RUNTIME)
	$(RUNTIME)/bin/python -m pip install --quiet -c constraints.txt $$($(BIN)/python -c 'import tomllib; \
	    p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	    print(*p["dependencies"], *p["optional-dependencies"]["test-runtime"])')
	touch $@

test-runtime: $(RUNTIME)/done
	$(RUNTIME)/bin/python -m pytest tests -q -m "not slow" $(PYTEST_ARGS)

check: lint
	$(BIN)/python -m pytest tests -q -n auto --dist loadfile -m "not slow" $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/clang-format --dry-run -Werror $$(find csrc tests -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
ifneq ($(shell command -v clang-tidy),)
	cmake -S . -B build/tidy -DCMAKE_EXPORT_COMPILE_COMMANDS=ON -DVQCODEC_CUDA=off -DVQCODEC_PYTHON=OFF -DVQCODEC_TESTS=ON
	clang-tidy -p build/tidy --quiet $(filter-out csrc/bindings/% %_neon.cpp,$(wildcard csrc/*/*.cpp))
endif

wheel: $(STAMP)
	rm -rf build/wheel
	VQCODEC_CUDA=off $(BIN)/python -m build --outdir build/wheel .
	$(BIN)/python tests/check_wheel.py build/wheel

cross: $(STAMP)
	PYTHON=$(abspath $(BIN))/python tests/cross.sh aarch64 s390x

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Peers that cannot be installed are left out of the table. CompressAI needs an older NumPy than ours, so it gets its own environment.
PEERS := .venv-peers

$(VENV)/bench: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	-$(BIN)/python -m pip install --quiet faiss-cpu
	touch $@

$(PEERS)/done:
	$(PYTHON) -m venv $(PEERS)
	-$(PEERS)/bin/python -m pip install --quiet compressai==1.2.8
	touch $@

bench: $(VENV)/bench $(PEERS)/done
	$(BIN)/python -m benchmarks $(IMAGES) --compressai $(PEERS)/bin/python $(BENCH_ARGS)

# Python itself is not instrumented, so it must load the sanitizer library (and libstdc++) first.
PRELOAD = $(shell c++ -print-file-name=libasan.so) $(shell c++ -print-file-name=libstdc++.so)

sanitize: $(STAMP)
	cmake -S . -B build/sanitize -DVQCODEC_TESTS=ON -DVQCODEC_FUZZ=ON -DVQCODEC_PYTHON=OFF -DVQCODEC_CUDA=off \
	  -DCMAKE_BUILD_TYPE=RelWithDebInfo -DVQCODEC_SANITIZE=address,undefined
	cmake --build build/sanitize --parallel
	build/sanitize/vqcodec_tests
	for name in integer_network prior_network range_decoder samples wavefront; do \
	  build/sanitize/fuzz_$$name --mutations 2000 tests/fuzz/corpus/$$name || exit 1; done
	VQCODEC_SANITIZE=address,undefined LD_PRELOAD="$(PRELOAD)" ASAN_OPTIONS=detect_leaks=0 \
	  $(BIN)/python -m pytest -q tests/ops/test_cuda.py -k "simulator or hierarchy or nearest or networks"

fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz.run --seconds 66

clean:
	rm -rf $(VENV) $(PEERS) build dist out *.egg-info .pytest_cache .hypothesis
	rm -f vqcodec/_native*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
