# Everything is installed below this folder: uv into .tools, packages into .venv, caches into .cache.
PYTHON ?= python3
UV_VERSION := $(shell sed -n 's/^uv==\([0-9.]*\).*/\1/p' requirements/dev.lock)
UV := .tools/bin/uv
BIN := .venv/bin
export UV_CACHE_DIR := $(CURDIR)/.cache/uv
export ML_CONTROL_CACHE := $(CURDIR)/.cache/ml-control
export DAGSTER_DISABLE_TELEMETRY := 1

.PHONY: help install demo up test test-fast check bench lock clean

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(UV): requirements/dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv .tools 2>/dev/null || $(PYTHON) -m venv --without-pip .tools
	@.tools/bin/python -m pip --version >/dev/null 2>&1 \
	  || { echo "Python has no pip or venv: install your system's python3-venv"; exit 1; }
	@grep -A40 '^uv==' requirements/dev.lock | sed -n '1,/[^\\]$$/p' > .tools/uv.lock
	@.tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
	  --no-deps -r .tools/uv.lock
	@touch $(UV)

.venv/.installed: $(UV) requirements/dev.lock pyproject.toml
	@test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) .venv
	@$(UV) pip sync --quiet --require-hashes --compile-bytecode --python $(BIN)/python requirements/dev.lock
	@$(UV) pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python -e .
	@touch $@

install: .venv/.installed ## Install what is locked into .venv

demo: install ## The whole story on real data in a fresh home
	$(BIN)/ml-control demo

up: install ## Dagster, its daemon and the endpoints for ./pipelines
	$(BIN)/ml-control up

test: install ## Every test
	$(BIN)/pytest -n 2 --dist loadfile

test-fast: install ## The tests that start no processes
	$(BIN)/pytest -q tests/core tests/contract/test_tables.py tests/contract/test_registry.py

check: install ## Lint, format, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install ## Benchmarks, as ratios measured in one run
	$(BIN)/python -m benchmarks

lock: $(UV) ## Lock the dependencies again
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
	  --python-version 3.11 pyproject.toml -o requirements/base.lock
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
	  --python-version 3.11 pyproject.toml --extra aws -c requirements/base.lock -o requirements/aws.lock
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
	  --python-version 3.11 pyproject.toml --extra aws --group dev -c requirements/base.lock -c requirements/aws.lock \
	  -o requirements/dev.lock
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
	  --python-version 3.11 requirements/ministack.in -o requirements/ministack.lock
	for tag in 1.5-1 1.7-1 3.0-5 3.2-0; do $(UV) pip compile --quiet --universal --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --python-version 3.11 \
	  ml_control/containers/$$tag.in -o ml_control/containers/$$tag.lock || exit 1; done

clean: ## Remove what was installed and built
	rm -rf .tools .venv .cache .ml_control
