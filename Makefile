# careline's commands. `make` alone lists them; each prints how long it took.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
DEMO ?= $(if $(CI),--once)

# $(call timed,NAME,COMMAND): runs it and says how long it took, also when it failed
timed = from=$$EPOCHREALTIME; status=0; { $(2); } || status=$$?; \
	awk -v a=$$from -v b=$$EPOCHREALTIME -v s=$$status \
	'BEGIN { printf "%s: %s after %.1f s\n", "$(1)", s ? "FAILED (exit " s ")" : "done", b - a > "/dev/stderr" }'; \
	exit $$status

.PHONY: help setup demo check test bench soak lock clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install all that is missing: Debian packages, pjsua2, .venv, npm parts
	@$(call timed,setup,docker/setup.sh)

demo: setup ## the whole hotline with a simulated patient and clinician; ends by itself without a terminal
	@$(call timed,demo,$(BIN)/careline demo $(DEMO))

check: ## under a minute: format, lint, types, imports, dialplans, unit and flow tests
	@$(call timed,check,docker/check.sh)

test: setup check ## everything: check, then all tests with real servers, phones and audio
	@$(call timed,test,$(PYTEST) $(TESTS))

bench: setup ## calls a second, bridges, CPU, delay, memory: one JSON line each
	@$(call timed,bench,$(BIN)/python -m tests.bench $(BENCH))

soak: setup ## 4,500 calls; fails on one lost call or on growing memory
	@$(call timed,soak,$(BIN)/python -m tests.bench soak $(SOAK))

lock: ## choose new versions of the Python packages and pin them
	@$(call timed,lock,docker/lock.sh)

clean: ## remove what setup and the tools made here; the pjsua2 cache and Debian packages stay
	rm -rf .venv build var *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	rm -rf tests/peers/fhir_server/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
