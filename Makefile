# Everything a fresh machine needs is set up by the targets themselves: Python 3.11 or 3.12 is the only requirement
# (and, for the tests, Go 1.26 or newer to build a MinIO server; without it a Go toolchain comes from a Python package).
VENV ?= .venv
UV_VERSION := 0.13.8
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PROCESSES ?= 2# that run the tests: half of their time is waiting
UV = $(shell command -v uv || echo $(CURDIR)/.uv/bin/uv)
# The environment of `make quick`: what the core, the operator and the tests import, without torch and transformers.
LIGHT := .venv-quick
LIGHT_PARTS := --editable '.[operator,dev]' pyarrow imagehash jinja2 markupsafe starlette uvicorn huggingface-hub safetensors mlflow
# What mypy cannot know there is the type of what comes from torch; `make check` knows it.
LIGHT_TYPES := --disable-error-code import-not-found --disable-error-code untyped-decorator --no-warn-unused-ignores \
  --no-warn-return-any --allow-subclassing-any --cache-dir .mypy_cache/quick

.DEFAULT_GOAL := help
.PHONY: help install quick demo evolve cluster cluster-down images cluster-demo crds test nightly check format lock benchmarks clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/pip install --quiet uv==$(UV_VERSION)

$(STAMP): requirements.lock pyproject.toml
	@command -v uv >/dev/null || $(MAKE) --no-print-directory .uv/bin/uv
	[ -x $(BIN)/python ] || $(UV) venv --quiet --python '>=3.11,<3.13' $(VENV)
	@echo "Installing about 7 GB, most of it PyTorch, into $(VENV): minutes, by the line and the disk."
	$(UV) pip sync --compile-bytecode --python $(BIN)/python requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

$(LIGHT)/.installed: requirements.lock pyproject.toml
	@command -v uv >/dev/null || $(MAKE) --no-print-directory .uv/bin/uv
	[ -x $(LIGHT)/bin/python ] || $(UV) venv --quiet --python '>=3.11,<3.13' $(LIGHT)
	$(UV) pip install --compile-bytecode --python $(LIGHT)/bin/python --constraint requirements.lock $(LIGHT_PARTS)
	@touch $@

install: $(STAMP) ## create .venv from the lock file

demo: $(STAMP) ## three iterations of the small world, start to promoted, without a GPU
	$(BIN)/viper run examples/demo.yaml --dir runs/demo

evolve: $(STAMP) ## the proof: three seeds of three iterations; resumable
	$(BIN)/python benchmarks/evolve.py --dir runs/evolve

cluster: ## a Kubernetes cluster: that of KUBECONFIG, kind's, or one node on this machine
	tests/cluster/up.sh

cluster-down: ## remove the cluster that `make cluster` started, and every trace of it
	tests/cluster/down.sh

images: cluster ## build the images operator and cpu and bring them into the cluster
	tests/cluster/images.sh

cluster-demo: ## cluster, images, chart, the small world on it: ends with promoted versions in MLflow
	tests/cluster/demo.sh

crds: $(STAMP) ## generate the CustomResourceDefinitions of the chart from the models
	$(BIN)/python -m viper_operator.crd charts/viper/templates/crds

check: $(STAMP) ## format, lint, types, import contracts, declared imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry viper jobs operator

quick: $(LIGHT)/.installed ## four minutes: the checks, and every test that needs no torch, server or cluster
	$(LIGHT)/bin/ruff format --check .
	$(LIGHT)/bin/ruff check .
	$(LIGHT)/bin/lint-imports
	$(LIGHT)/bin/deptry viper jobs operator
	$(LIGHT)/bin/mypy $(LIGHT_TYPES)
	$(LIGHT)/bin/pytest --quick --timeout 120 -n $(PROCESSES)

test: check ## every check and every test
	tests/packages.sh
	@PYTHON=$(abspath $(BIN))/python nice tests/prepare.sh >$(STAMP).log 2>&1 & \
	$(BIN)/pytest -n $(PROCESSES)

nightly: $(STAMP) ## what takes too long for every test run: a loop watched and verl on a cluster (root, Linux), attempts that come back
	VIPER_CHAOS=full $(BIN)/pytest -n $(PROCESSES) tests/chaos
	$(BIN)/pytest tests/cluster/nightly_watched.py tests/cluster/nightly_verl.py

format: $(STAMP) ## format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

LOCK_IMAGE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

lock: ## resolve requirements.lock and the images' lock files anew
	$(UV) pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes \
	  --no-emit-index-url --no-header pyproject.toml -o requirements.lock
	$(LOCK_IMAGE) -c requirements.lock images/operator/requirements.in -o images/operator/requirements.lock
	$(LOCK_IMAGE) -c requirements.lock --extra cpu pyproject.toml -o images/cpu/requirements.lock
	$(LOCK_IMAGE) images/synthesis/requirements.in -o images/synthesis/requirements.lock
	cp images/synthesis/requirements.lock images/synthesis/omni.lock # versions to keep where they will do
	$(LOCK_IMAGE) images/synthesis/omni.in -o images/synthesis/omni.lock
	$(LOCK_IMAGE) images/training/requirements.in -o images/training/requirements.lock
	$(LOCK_IMAGE) -c images/training/requirements.lock images/training/cpu.in -o images/training/cpu.lock
	$(LOCK_IMAGE) --override images/evaluation/overrides.txt \
	  images/evaluation/requirements.in -o images/evaluation/requirements.lock
	$(LOCK_IMAGE) --override images/evaluation/overrides.txt -c requirements.lock \
	  images/evaluation/cpu.in -o images/evaluation/cpu.lock
	$(LOCK_IMAGE) images/build.in -o images/build.lock
	$(LOCK_IMAGE) images/uv.in -o images/uv.lock

benchmarks: $(STAMP) ## reward and store benchmarks, as ratios
	$(BIN)/python benchmarks/reward.py
	$(BIN)/python benchmarks/store.py

clean: ## remove the virtual environments and caches, keep runs
	rm -rf $(VENV) $(LIGHT) .uv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
