# Every target works from a clean checkout: each installs what it needs into .venv first.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
LOCK ?= locks/dev.lock
# More options for pytest: make test-fast PYTEST_ARGS="-k report"
PYTEST_ARGS ?=
# Behind a company's own certificate authority uv must read the system's certificates, as pip does.
export UV_SYSTEM_CERTS ?= 1
# Hundreds of processes are started here, and each would compile anew what it imports: torch alone takes seconds.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
UV := VIRTUAL_ENV=$(VENV) $(BIN)/uv
PYTEST := $(BIN)/python -m pytest
CRD := crds/rlhf.dev_rlhfruns.yaml
CHART_CRD := charts/rlhf-operator/files/rlhf.dev_rlhfruns.yaml

# What a target needs is made in the order in which it stands there, also with -j.
.NOTPARALLEL:

.PHONY: help
help: ## What there is to do here.
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  \1\t/' | expand -t 22

.PHONY: install
install: $(INSTALLED) ## Make .venv with everything that the CPU needs, at the locked versions.

# Bytecode is not compiled here: of 7 GB a run imports a part, and that part is compiled once, as it is imported.
$(INSTALLED): pyproject.toml $(LOCK) locks/build.lock
	@$(PYTHON) tools/doctor.py
	@echo "installing about 7 GB into $(VENV); minutes the first time, seconds when the packages are cached"
	$(PYTHON) -m venv $(VENV)
	awk '/^[a-z]/ { wanted = /^uv==/ } wanted' locks/build.lock > $(VENV)/uv.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement $(VENV)/uv.lock
	$(UV) pip install --quiet --no-deps --require-hashes -r $(LOCK)
	$(UV) pip install --quiet --no-deps -e .
	touch $@

# Before anything is installed or built, by the Python that is there: whoever lacks something knows it after a second.
.PHONY: doctor
doctor: ## Name everything that this machine lacks for `make test`, with the command that installs it.
	@$(if $(wildcard $(INSTALLED)),$(BIN)/python,$(PYTHON)) tools/doctor.py --tests

# pytest would build them, too, when a test first wants one: within that test's time limit, and without a word of what is left.
.PHONY: programs
FOR := test
programs: install ## Build what the tests need and no package index has: programs from source, and the image. Once; 20 minutes.
	@PYTHONPATH=tests $(BIN)/python -m support.ahead $(FOR)

.PHONY: quickstart
quickstart: install ## Improve a tiny language model by online iterative DPO on this machine, and write a report.
	$(BIN)/rlhfctl quickstart

# Importing torch costs more than most tests, and the other tests mostly wait: for a cluster, for processes. So what needs torch goes in
# one pytest, and the rest in another beside it. Exit code 5: PYTEST_ARGS selects nothing of one half.
HEAVY := tests/e2e tests/faults tests/trainer
define in_halves
	@said=$$(mktemp); light=0; heavy=0; \
	$(PYTEST) $(1) $(HEAVY) $(PYTEST_ARGS) > "$$said" 2>&1 & \
	pid=$$!; trap 'kill $$pid 2> /dev/null || :; rm -f "$$said"' EXIT; \
	$(PYTEST) $(2) $(HEAVY:%=--ignore=%) $(PYTEST_ARGS) || light=$$?; \
	wait $$pid || heavy=$$?; cat "$$said"; \
	[[ $$light =~ ^[05]$$ && $$heavy =~ ^[05]$$ && $$light$$heavy != 55 ]]
endef

# Threads that wait would turn, and keep the cores from what they wait for: half of these processes run on the same ones.
.PHONY: test
test: export OMP_WAIT_POLICY = PASSIVE
test: doctor install programs ## The tests that need no GPU, but the long ones below; the full quickstart and a run in pods are among them. Half an hour.
	$(call in_halves,$(ALL),$(ALL))
ALL := -m "not gpu and not faults and not crash_points and not e2e_faults and not real_run" --durations=12

# Two processes for each half, and one thread in each: tiny models only get in each other's way.
.PHONY: test-fast
test-fast: export OMP_NUM_THREADS = 1
test-fast: install ## The tests without engines, S3 server, cluster, node, faults and what others publish. Within a minute.
	$(call in_halves,$(FAST),$(FAST))
FAST := -q -n 2 --dist worksteal -m "not engine and not processes and not s3 and not faults and not cluster and not node and not real and not gpu"

.PHONY: test-real
test-real: FOR := real
test-real: install programs ## What reads what others publish, fetched once: makers' tokenizers, and a whole run of a real instruct model. Ten minutes.
	$(PYTEST) -m "real" tests/e2e tests/trainer $(PYTEST_ARGS)

.PHONY: e2e
e2e: FOR := e2e
e2e: doctor install programs ## The image on a real node: a whole run in pods, which loses an operator, a sampler and a rank. Needs root; 10 minutes.
	$(PYTEST) -m "e2e" tests/e2e $(PYTEST_ARGS)

.PHONY: e2e-faults
e2e-faults: FOR := e2e
e2e-faults: doctor install programs ## Everything that may happen to a run on that node, at least twenty dead operators among it, and a table. Needs root; an hour.
	$(PYTEST) -m "e2e_faults" tests/e2e $(PYTEST_ARGS)

.PHONY: test-faults
test-faults: FOR := faults
test-faults: install programs ## Kill every stage in every way, and rlhfctl at random moments.
	$(PYTEST) -m "faults" $(PYTEST_ARGS)

.PHONY: test-crash-points
test-crash-points: FOR := crash-points
test-crash-points: install programs ## Kill the operator right before and right after every single write of whole runs, and print a table.
	$(PYTEST) -q -m "crash_points" tests/kubernetes/faults/test_crash_points.py $(PYTEST_ARGS)

.PHONY: test-gpu
test-gpu: install ## The tests that need a GPU, on a machine that has one.
	$(PYTEST) -m "gpu" $(PYTEST_ARGS)

.PHONY: cluster-up
cluster-up: install ## Start a Kubernetes with simulated nodes here, and say how to use it. It is built first, once: 10 minutes.
	@$(BIN)/python tests/cluster up

.PHONY: cluster-down
cluster-down: install ## Stop it, and remove everything of it but the programs.
	@$(BIN)/python tests/cluster down

.PHONY: lint
lint: install ## Style, types, layers, and that generated files are what they would be now.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m rlhf_api.crd --check
	$(BIN)/python tools/cli_docs.py --check
	$(BIN)/python tools/api_docs.py --check
	$(BIN)/python tools/chart_docs.py --check
	@cmp $(CRD) $(CHART_CRD) || { echo "The chart's CRD is not the generated one; run: make generate" >&2; exit 1; }
	$(BIN)/python tools/lock_inputs.py

.PHONY: generate
generate: install ## Write the generated files: the CRD, docs/cli.md, the tables of docs/api.md and of the chart's README.
	$(BIN)/python -m rlhf_api.crd
	cp $(CRD) $(CHART_CRD)
	$(BIN)/python tools/cli_docs.py
	$(BIN)/python tools/api_docs.py
	$(BIN)/python tools/chart_docs.py

.PHONY: lock
lock: install ## Resolve the locks again, after a change of dependencies in pyproject.toml.
	for name in cpu gpu dev; do \
	  case $$name in \
	    cpu) extras="--extra operator --extra trainer --extra cpu" ;; \
	    gpu) extras="--extra operator --extra trainer --extra gpu" ;; \
	    dev) extras="--extra operator --extra trainer --extra cpu --extra dev" ;; \
	  esac; \
	  $(BIN)/uv pip compile --quiet pyproject.toml $$extras --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header -o locks/$$name.lock; \
	done
	$(BIN)/uv pip compile --quiet --group pyproject.toml:build --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header -o locks/build.lock
	$(BIN)/uv pip compile --quiet --group pyproject.toml:published --no-deps --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header -o locks/published.lock
	$(BIN)/python tools/lock_inputs.py --write

.PHONY: clean
clean: ## Remove caches and build outputs; .venv and .rlhf stay.
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
