# Each target sets up what it needs: `make serve` and `make test` work on a machine that has Python 3.11+ and make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH := torch>=2.11,<2.14
ARGS ?=

.PHONY: serve test check format bench-host sanitize sanitize-gpu clean

serve: $(VENV)/.serve
	$(BIN)/ridgeline serve --model demo $(ARGS)

test: $(VENV)/.test
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

check: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python scripts/readme_table.py --check
	$(BIN)/python -m scripts.page_course --check
	$(BIN)/python scripts/option_reference.py --check

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench-host: $(VENV)/.test
	$(BIN)/python scripts/bench_host.py $(ARGS)

# Native code for CPUs under AddressSanitizer and UndefinedBehaviorSanitizer, for this machine and for less able ones; and
# the team of threads under ThreadSanitizer.
COMPILED := -std=c++17 -O1 -g -pthread -fno-math-errno -Wno-psabi -Isrc/ridgeline/device/native -Itests/device
SANITIZED := $(COMPILED) -fsanitize=address,undefined -fno-sanitize-recover=all
TARGETS := $(if $(filter x86_64,$(shell uname -m)),-march=native -march=x86-64-v3 -march=x86-64,-O1)

sanitize:
	@mkdir -p build
	$(CXX) $(COMPILED) -fsanitize=thread tests/device/sanitize_team.cpp -o build/sanitized && build/sanitized $(ARGS)
	@for target in $(TARGETS); do \
	  echo "attention, $$target"; \
	  $(CXX) $(SANITIZED) $$target -Isrc/ridgeline/attention/native tests/attention/sanitize_attention.cpp \
	    -o build/sanitized && build/sanitized || exit 1; \
	  for name in linear dense; do \
	    echo "$$name, $$target"; \
	    $(CXX) $(SANITIZED) $$target -Isrc/ridgeline/ops/native tests/ops/sanitize_$$name.cpp -o build/sanitized && \
	      build/sanitized $(ARGS) || exit 1; \
	  done; \
	done

sanitize-gpu: $(VENV)/.test
	PYTHON=$(BIN)/python scripts/check_gpu_sanitize.sh $(ARGS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Without an NVIDIA GPU the CPU build of torch is enough and 3 GB smaller. It sorts above the CUDA build of the same
# release, so pip prefers it where it can reach it, and takes what it has otherwise.
$(VENV)/.torch:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Ridgeline needs Python 3.11 or newer; try: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	if ! command -v nvidia-smi >/dev/null; then \
	  $(BIN)/pip install --retries 1 --no-deps --extra-index-url https://download.pytorch.org/whl/cpu '$(TORCH)'; fi
	touch $@

$(VENV)/.serve: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install -e .
	touch $@

$(VENV)/.test: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install -e '.[test]'
	touch $@ $(VENV)/.serve
