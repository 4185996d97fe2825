# Two commands matter: `make demo` and `make test`. Everything they need is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := payloads detectors explainers logger adapters service

.PHONY: demo test test-services fuzz lint types docs bench coverage clean

.venv/.created:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

.venv/.demo: .venv/.created pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	touch $@

.venv/.dev: .venv/.created pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ .venv/.demo

demo: .venv/.demo  ## the main job on real data; DEMO="--quick --once" passes options on
	$(BIN)/sidelight demo $(DEMO)

test: .venv/.dev  ## unit, property and contract tests; no server but our own
	$(BIN)/python -m pytest -q

test-services: .venv/.dev  ## real servers and clients, which it gets itself: kills, recovery, the demo
	tests/services/install_tools.sh
	$(BIN)/python -m pytest -q --override-ini='norecursedirs=.*' tests/services

.venv/.fuzz: .venv/.dev
	$(BIN)/python -m pip install --quiet 'atheris>=3.0'
	touch $@

fuzz: .venv/.fuzz  ## coverage-guided, over envelopes and payloads; FUZZ="-max_total_time=3600" for longer
	$(BIN)/python -m tests.fuzz.fuzz_events $(or $(FUZZ),-max_total_time=60)

coverage: .venv/.dev  ## branch coverage of the unit tests
	$(BIN)/python -m pytest -q --cov --cov-report=term

lint: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: .venv/.dev
	$(BIN)/mypy

docs: .venv/.dev  ## the reference page must be what the code says
	$(BIN)/python docs/reference.py --check

bench: .venv/.dev  ## prints figures and ratios; asserts no time
	for script in tests/benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .coverage*
