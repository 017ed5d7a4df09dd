# Two commands do everything on a new machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo test check format unit bench bench-listener fuzz load soak \
	kernel kernel-test kernel-shell kernel-deps clean
.DEFAULT_GOAL := help

help: ## Show what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pinfold needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

setup: $(STAMP) ## Make the virtual environment in .venv

demo: $(STAMP) ## Run real programs under pinned arguments, and a race that pinning wins
	$(BIN)/python examples/demo.py

test: check ## Run every check and every test
	$(BIN)/python -m pytest

unit: $(STAMP) ## Run the tests that need no kernel
	$(BIN)/python -m pytest tests/unit

check: $(STAMP) ## Formatting, lint, types, import contracts, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/gen_numbers.py --check
	$(BIN)/python tools/gen_syscall_docs.py --check
	$(BIN)/python tools/gen_policy_docs.py --check

format: $(STAMP) ## Rewrite the sources in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## Measure what pinfold costs (BENCH="call start --rounds 30" …); see docs/performance.md
	$(BIN)/pinfold bench $(BENCH)

bench-listener: $(STAMP) ## Measure what each way of answering a listener costs (BENCH=--cpu=0 …)
	$(BIN)/python bench/listener.py $(BENCH)

fuzz: $(STAMP) ## Fuzz each target for SECONDS (60), guided by coverage; see docs/fuzzing.md
	for target in codec policy patterns audit bpf names wire; do \
		$(BIN)/python fuzz/$$target.py -max_total_time=$(or $(SECONDS),60) || exit 1; \
	done

load: $(STAMP) ## 1,000 processes, 2,000 threads, 100 sandboxes, a fork bomb; see docs/reliability.md
	$(BIN)/python bench/load.py all $(LOAD)

soak: $(STAMP) ## A mixed load for SECONDS (20) in each of three ways: nothing may grow
	$(BIN)/python bench/soak.py --seconds $(or $(SECONDS),20)

kernel: $(STAMP) ## Build Linux with pinfold's two requests (KERNEL="--variant lockdep" …); see kernel/README.md
	$(BIN)/python -m kernel build $(KERNEL)

kernel-test: $(STAMP) ## Boot it in QEMU and test it there (KERNEL="--suite conformance" …)
	$(BIN)/python -m kernel test $(KERNEL)

kernel-shell: $(STAMP) ## Boot it with a shell (KERNEL="-- COMMAND" …)
	$(BIN)/python -m kernel shell $(KERNEL)

kernel-deps: $(STAMP) ## Install what that takes, as root on Debian
	$(BIN)/python -m kernel deps

clean: ## Remove the environment and what tests built
	rm -rf $(VENV) .build
