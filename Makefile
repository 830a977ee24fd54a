# Two commands matter: `make search` and `make test`. Both set everything up first, in .venv, once.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: search test check lint types bench clean

# One environment for everything, rebuilt when what it is made of changes. torch goes first and pinned: whichever
# package asks for it later finds it there, and cannot pull another build in.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

search: .venv/installed  ## search for a network on the embedded digits: about six minutes on two cores
	$(BIN)/python -m nas.search name=first $(ARGS)

test: .venv/installed  ## lint, types and tests: exactly what CI runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

check: test

bench: .venv/installed  ## the benchmarks, one after the other; each prints its ratio, n and spread
	for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache *.egg-info
