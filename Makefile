# Two commands matter: `make search` and `make test`. Both set everything up first, in .venv, once.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: search family test test-all test-oldest-ray check bench docs clean

# One environment for everything, rebuilt when what it is made of changes. torch goes first and pinned: whichever
# package asks for it later finds it there, and cannot pull another build in.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

search: .venv/installed  ## search for a network of about 400M MACs on the embedded digits; minutes on two cores
	$(BIN)/python -m nas.search name=first reward=absolute budget=40 $(ARGS)

# The whole chain, each step from what the one before it wrote. Typed again it goes on where it was stopped.
FAMILY ?= family
family: .venv/installed  ## search, scaling search and model generator in one; 8 minutes on two cores
	$(BIN)/python -m nas.search name=$(FAMILY)-search reward=absolute budget=20
	$(BIN)/python -m scaling_search.grid name=$(FAMILY)-scaling baseline=runs/$(FAMILY)-search/best.yaml candidates=6 seeds=2
	$(BIN)/python -m phinas.generate name=$(FAMILY) scaling=runs/$(FAMILY)-scaling/scaling.yaml phi=[0,1,2] export=all

TESTS ?= not slow
test: .venv/installed  ## lint, types and tests, in six minutes on two cores
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile -m "$(TESTS)"

test-all: TESTS =  # also those that take long, and the oldest Ray that is allowed: what CI runs
test-all: test-oldest-ray test

# The oldest Ray that pyproject.toml allows lies in a folder of its own, found before the newest.
OLDEST_RAY := $(CURDIR)/.venv/ray-2.54.0
$(OLDEST_RAY): .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ ray==$(patsubst ray-%,%,$(notdir $@))

test-oldest-ray: $(OLDEST_RAY)  ## what runs on Ray, with the oldest Ray that is allowed
	PYTHONPATH=$(OLDEST_RAY) $(BIN)/python -m pytest -m "not slow" tests/test_ray_engine.py tests/test_cluster.py tests/test_tune.py tests/test_workers.py

check: test

bench: .venv/installed  ## minutes; benchmarks.proxy_study and benchmarks.search_learns take longer and are run by hand
	$(BIN)/python -m benchmarks.cost_speed
	$(BIN)/python -m benchmarks.engine_overhead
	$(BIN)/python -m benchmarks.proxy_throughput --ray

.venv/docs: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[docs]"
	touch $@

docs: .venv/docs  ## the documentation as a site in site/; a broken link or a page that is in no menu fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf site .venv .mypy_cache .pytest_cache .ruff_cache *.egg-info
