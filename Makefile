# PYTHON is the interpreter that the environment is built on; VENV is where the environment is.
PYTHON ?= python3
VENV ?= .venv
UV ?= uv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

members := . $(patsubst %/pyproject.toml,%,$(wildcard exporters/*/pyproject.toml))

.PHONY: all env lint types layers test lock

all: lint types layers test

env: $(READY)

# Third-party packages by hash; then our own, built with the hatchling that was just installed. With uv where there is
# one, since it is ten times as fast, else with what every Python brings.
$(READY): requirements/dev.txt pyproject.toml $(wildcard exporters/*/pyproject.toml)
	if $(UV) --version >/dev/null 2>&1; then \
		$(UV) venv --quiet --clear --no-project --python $(PYTHON) $(VENV) && export VIRTUAL_ENV=$(VENV) && \
		$(UV) pip sync --quiet --require-hashes requirements/dev.txt && \
		$(UV) pip install --quiet --no-deps --no-build-isolation $(addprefix --editable ,$(members)); \
	else \
		$(PYTHON) -m venv --clear $(VENV) && export PIP_DISABLE_PIP_VERSION_CHECK=1 && \
		$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements/dev.txt && \
		$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation $(addprefix --editable ,$(members)); \
	fi
	touch $@

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY)
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

layers: $(READY)
	$(BIN)/lint-imports

test: $(READY)
	$(BIN)/python -m pytest $(ARGS)

# Pins for every Python and platform at once. Our own packages stay out, and so does the name of any registry.
lock:
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
		--all-extras --group dev --no-emit-package msgtap $(patsubst exporters/%,--no-emit-package msgtap-%,$(filter exporters/%,$(members))) \
		--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
		--output-file requirements/dev.txt $(addsuffix /pyproject.toml,$(members))
