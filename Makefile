# The two commands a newcomer needs are `make run` and `make test`; `make help` lists the rest.
# Every target sets up what it lacks (setup/environment is quick when nothing has changed).
#
#   make test ARGS="-k reminder -x"     arguments for pytest
#   make bench ARGS="--only lateness"   arguments for the benchmark
#   make chaos ARGS="--seeds 10"        arguments for the chaos
#   make run PYTHON=python3.13          which Python the virtual environment is made with (first time only)

BIN := .venv/bin
ARGS ?=
PYTHON ?=
export PYTHON

.PHONY: help run test lint format types imports audit lock bench chaos clean
.DEFAULT_GOAL := help

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

run: ## set up what is missing, then everything in one: API, worker, SQLite, Redis, Maildir
	@setup/environment run
	@exec $(BIN)/punctual up

test: ## set up what is missing, then every test on both stacks
	@setup/environment dev
	@setup/servers
	@$(BIN)/python -m pytest -n 5 --dist worksteal $(ARGS)

lint: ## ruff: rules and format
	@setup/environment dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: ## put imports and format right
	@setup/environment dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: ## mypy
	@setup/environment dev
	@$(BIN)/mypy

imports: ## the import contract: web | jobs -> scheduler -> models
	@setup/environment dev
	@$(BIN)/lint-imports

audit: ## bandit over our code, pip-audit over what is locked (says so where there is no network)
	@setup/environment dev
	@$(BIN)/python .ci/audit.py

lock: ## write the lock files afresh from pyproject.toml and setup/uv.in
	@setup/environment run
	@setup/lock

bench: ## the benchmark program (minutes; see bench/__init__.py)
	@setup/environment dev
	@setup/servers
	@exec $(BIN)/python -m bench $(ARGS)

chaos: ## kill, cut and flush everything under load (minutes; see tests/chaos/__init__.py)
	@setup/environment dev
	@setup/servers
	@exec $(BIN)/python -m tests.chaos $(ARGS)

clean: ## remove the virtual environment and every cache; your data in var/ stays
	rm -rf .venv bench/.venv dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
