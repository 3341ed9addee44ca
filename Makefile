# Every target works from a clean checkout: each installs what it needs into .venv first.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
UV_VERSION := 0.13.9
LOCK ?= locks/dev.lock
# Behind a company's own certificate authority uv must read the system's certificates, as pip does.
export UV_SYSTEM_CERTS ?= 1

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest

.PHONY: help
help: ## What there is to do here.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 18

.PHONY: install
install: $(INSTALLED) ## Make .venv with everything that the CPU needs, at the locked versions.

$(INSTALLED): pyproject.toml $(LOCK)
	@$(PYTHON) tools/doctor.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --require-hashes -r $(LOCK)
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps -e .
	touch $@

.PHONY: lock
lock: ## Resolve the locks again (pyproject.toml changed).
	for name in cpu gpu dev; do \
	  case $$name in \
	    cpu) extras="--extra operator --extra trainer --extra cpu" ;; \
	    gpu) extras="--extra operator --extra trainer --extra gpu" ;; \
	    dev) extras="--extra operator --extra trainer --extra cpu --extra dev" ;; \
	  esac; \
	  $(BIN)/uv pip compile --quiet pyproject.toml $$extras --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header -o locks/$$name.lock; \
	done
