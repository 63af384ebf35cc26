# make demo      set up, then compress, decompress and sample: pictures in out/
# make test      set up, then all tests (PYTEST_ARGS for more)
# make build     set up only: .venv with the compiled core and all dependencies
# make sanitize  the C++ tests, and the CUDA kernels run by the CPU, under the address and
#                undefined-behaviour sanitizers
# make fuzz      the fuzz targets for 10 minutes in all (needs Clang and atheris, see docs/FUZZING.md)
# make clean     remove everything that the above made

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/built
INPUTS := pyproject.toml setup.py constraints.txt CMakeLists.txt $(shell find csrc -type f)

.PHONY: demo test build sanitize fuzz clean

build: $(STAMP)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP): $(INPUTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

demo: $(STAMP)
	$(BIN)/vqcodec demo -o out

test: $(STAMP)
	$(BIN)/python -m pytest tests $(PYTEST_ARGS)

# Python itself is not instrumented, so it must load the sanitizers' library (and libstdc++) first.
PRELOAD = $(shell c++ -print-file-name=libasan.so) $(shell c++ -print-file-name=libstdc++.so)

sanitize: $(STAMP)
	cmake -S . -B build/sanitize -DVQCODEC_TESTS=ON -DVQCODEC_FUZZ=ON -DVQCODEC_PYTHON=OFF -DVQCODEC_CUDA=off \
	  -DCMAKE_BUILD_TYPE=RelWithDebInfo -DVQCODEC_SANITIZE=address,undefined
	cmake --build build/sanitize --parallel
	build/sanitize/vqcodec_tests
	for name in prior_network range_decoder wavefront; do \
	  build/sanitize/fuzz_$$name --mutations 2000 tests/fuzz/corpus/$$name || exit 1; done
	VQCODEC_SANITIZE=address,undefined LD_PRELOAD="$(PRELOAD)" ASAN_OPTIONS=detect_leaks=0 \
	  $(BIN)/python -m pytest -q tests/test_cuda.py -k "simulator or hierarchy or nearest"

fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz.run --seconds 66

clean:
	rm -rf $(VENV) build dist out *.egg-info .pytest_cache .hypothesis
	rm -f vqcodec/_native*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
