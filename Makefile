# One page of commands. Works with GNU make 3.81, the one that macOS still ships.

SHELL := /bin/sh
.DEFAULT_GOAL := help

# The interpreter that makes .venv: the first of these that is new enough. Override with PYTHON=.
PYTHONS := python3 python3.13 python3.12 python3.11 python3.14
PYTHON ?= $(shell for p in $(PYTHONS); do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { "$$p" -c 'import sys; print(sys.executable)'; break; }; done)
# The uv on the PATH, else one of our own in .uv.
UV ?= $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
UV_VERSION := 0.13.9
# How many test processes.
N ?= 2
# How long the chaos lasts, and the fuzzing.
MINUTES ?= 2
SECONDS ?= 600

BIN := .venv/bin
READY := .venv/.synced
# The newest pydantic-ai, beside the pair that uv.lock holds.
OTHER := .venv-other
export UV_PYTHON_DOWNLOADS := never
# Trust what the machine trusts (a company's own certificate authority), where it has a store.
UV_SYSTEM_CERTS ?= $(if $(wildcard /etc/ssl/cert.pem /etc/ssl/certs/*.pem /etc/ssl/certs/*.crt),true,false)
export UV_SYSTEM_CERTS
export UV_PROJECT_ENVIRONMENT := .venv

.PHONY: help setup demo up test chaos fuzz mutants size pairs screenshots check spine format lock clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## Make .venv from uv.lock, with everything that demo, test and check need

demo: $(READY) ## Run the whole loop once on real servers: submit, ask, decide, finish
	@$(BIN)/banksman demo $(ARGS)

up: $(READY) ## Start the embedded stack and keep it up (Ctrl-C stops it)
	@$(BIN)/banksman up $(ARGS)

test: $(READY) ## Run every test on real servers (N=4 for four processes, ARGS="-k digest")
	@$(BIN)/pytest -n $(N) --dist loadfile $(ARGS)

chaos: $(READY) ## Kill, freeze, stop and cut off everything while runs flow (MINUTES=2, SEED=7 for the same again)
	@$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

fuzz: $(READY) ## Call the API in ways nobody would, for long (SECONDS=600), stopping at the first surprise
	@FUZZ_SECONDS=$(SECONDS) $(BIN)/pytest -n 0 tests/gateway/test_fuzz.py $(ARGS)

mutants: $(READY) ## Take each defence away in turn; its tests must go red (SHORT=1 the vital ones, ONLY=word)
	@$(BIN)/python scripts/mutants.py $(if $(SHORT),--short) $(if $(ONLY),--only "$(ONLY)")

size: $(READY) ## Measure moves, lists and searches among many runs (ARGS="--parked 1000000 --finished 3000000")
	@$(BIN)/python -m tests.size $(ARGS)

pairs: $(OTHER)/.synced ## Run the worker's tests on the other pair of agent libraries
	@$(OTHER)/bin/pytest -n $(N) --dist loadfile tests/worker tests/compat $(ARGS)

screenshots: $(READY) ## Take the documentation's pictures of a real stack in Chromium (ARGS="inbox trap" some of them)
	@$(BIN)/python scripts/screenshots.py $(ARGS)

check: $(READY) ## Lint, types, import walls, the spine's line count, the compose file
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	@$(MAKE) --no-print-directory spine

spine: $(READY) ## Count the lines of the spine and compare them with their limit
	@$(BIN)/python scripts/spine.py

format: $(READY) ## Format the code and apply the safe fixes
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

lock: | $(UV) ## Resolve uv.lock afresh within the ranges of pyproject.toml
	$(UV) lock --upgrade --python "$(PYTHON)"
	$(UV) pip compile --no-config --quiet --universal --python-version 3.11 --upgrade \
		--all-extras --no-annotate --custom-compile-command 'make lock' \
		pyproject.toml tests/compat/requirements.in -o tests/compat/requirements.txt

clean: ## Remove what make has made (a running stack's data in .banksman stays)
	rm -rf .venv $(OTHER) .uv .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist
	find shared services tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml uv.lock | $(UV)
	@test -n "$(PYTHON)" || { echo "Banksman needs Python 3.11 or newer, and none of" \
		"$(PYTHONS) is. Install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	$(UV) sync --frozen --all-extras --quiet --python "$(PYTHON)"
	@touch $@

$(OTHER)/.synced: pyproject.toml tests/compat/requirements.txt | $(UV)
	$(UV) venv --no-config --quiet --clear --python "$(PYTHON)" $(OTHER)
	$(UV) pip install --no-config --quiet --python $(OTHER)/bin/python \
		--requirements tests/compat/requirements.txt --no-deps --editable .
	@touch $@

.uv/bin/uv:
	@test -n "$(PYTHON)" || { echo "Banksman needs Python 3.11 or newer, and none of" \
		"$(PYTHONS) is. Install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module." \
		"On Debian and Ubuntu: apt install python3-venv. Then run make again." >&2; exit 1; }
	"$(PYTHON)" -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
