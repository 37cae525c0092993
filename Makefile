# The whole project by name. `make demo` and `make test` make the environment where it is missing.
# CPU-only torch (no CUDA libraries, several GB less):  UV_TORCH_BACKEND=cpu make env

.DEFAULT_GOAL := help
.PHONY: help env demo test test-slow test-soak lint format bench wheel pins clean

UV  := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
BIN := .venv/bin
export UV_COMPILE_BYTECODE ?= 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true

help:  ## say what can be made
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

env: .venv/.ready  ## make the environment in .venv

.venv/.ready: pyproject.toml constraints.txt .python-version
	@command -v uv >/dev/null 2>&1 || test -x .uv/bin/uv || $(MAKE) --no-print-directory .uv/bin/uv
	test -x $(BIN)/python || $(UV) venv --quiet || $(UV) venv --quiet --python '>=3.12'
	$(UV) pip install --constraint constraints.txt --group dev --editable .
	@touch $@

# uv from the package index, into this folder alone, by whatever Python 3 has pip or venv
.uv/bin/uv:
	@echo "uv is not installed: fetching it into .uv"
	@python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --target .uv uv 2>/dev/null \
	|| { python3 -m venv .uv && .uv/bin/python -m pip install --quiet --disable-pip-version-check uv; } \
	|| { echo "This needs uv, or a Python 3 that has pip or venv (Debian: apt install python3-pip)." >&2; exit 1; }

demo: env  ## run the whole main job on a generated landscape: maps and a report in out/demo
	$(BIN)/geossl demo --folder out/demo

test: env  ## fast tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not soak" -n 2 --dist loadgroup $(ARGS)

test-slow: env  ## tests that start real services or take minutes
	$(BIN)/python -m pytest -m slow $(ARGS)

test-soak: env  ## a year of the loop, scene by scene, with everything being killed at random
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m soak -s $(ARGS)

lint: env  ## style, types, layering
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy

format: env  ## let ruff format and mend what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: env  ## measure against peers and limits; ONLY=name,name runs some
	$(BIN)/python -m tests.benchmarks $(if $(ONLY),--only $(ONLY))

wheel: env  ## build the wheel into dist
	$(UV) build --wheel --quiet

pins:  ## resolve the dependencies anew into constraints.txt
	$(UV) pip compile pyproject.toml --group dev --universal --python-version 3.12 --no-header --no-annotate --quiet --upgrade --output-file constraints.txt

clean:  ## remove what runs leave behind (not the environment)
	rm -rf out dist .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
