# PYTHON is the interpreter that `make env` builds on; VENV is where the environment is.
PYTHON ?= python3
VENV ?= .venv
UV ?= uv
BIN := $(VENV)/bin

members := . $(patsubst %/pyproject.toml,%,$(wildcard exporters/*/pyproject.toml))

.PHONY: all env lint types layers test lock

all: lint types layers test

# Third-party packages by hash; then our own, built with the hatchling that was just installed.
env:
	$(UV) venv --quiet --clear --no-project --python $(PYTHON) $(VENV)
	VIRTUAL_ENV=$(VENV) $(UV) pip sync --quiet --require-hashes requirements/dev.txt
	VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --no-deps --no-build-isolation $(addprefix --editable ,$(members))

lint:
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types:
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

layers:
	$(BIN)/lint-imports

test:
	$(BIN)/python -m pytest $(ARGS)

# Pins for every Python and platform at once. Our own packages stay out, and so does the name of any registry.
lock:
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
		--all-extras --group dev --no-emit-package msgtap $(patsubst exporters/%,--no-emit-package msgtap-%,$(filter exporters/%,$(members))) \
		--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
		--output-file requirements/dev.txt $(addsuffix /pyproject.toml,$(members))
