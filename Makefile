# One command each, and each does its own set-up: it makes .venv, installs what it needs and builds what has changed.
# PYTHON=python3.12 make …   uses another interpreter.  PYTEST_ARGS='-k queue'   narrows the tests.
PYTHON      ?= python3
PYTEST_ARGS ?=
RUN_ARGS    ?=
BENCH_ARGS  ?=
FUZZ_S      ?= 60
CHURN_S     ?= 300
SOAK_S      ?= 1200
GUARD_ARGS  ?=
SCRIPTS     ?= 3000
SEED        ?= 1000000
ROUNDS      ?= 1000

VENV     := .venv
BIN      := $(VENV)/bin
BUILT    := $(VENV)/.built
FOLDERS  := codec storage broker
SOURCES  := $(shell find $(FOLDERS) tests bench -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi') setup.py
# A folder changes when a file comes or goes in it: then the view that mypy and Cython read (setup.py) is made anew.
PACKAGES := $(shell find $(FOLDERS) -name __pycache__ -prune -o -type d -print)
# Two makes in the same tree take turns where they would write the same files.
LOCK     := flock .make.lock

.PHONY: run build test lint format docs bench guard guard-baseline soak churn differential crash fuzz wheel-smoke pins clean

run: build
	$(BIN)/leveret start $(RUN_ARGS)

build: $(BUILT)

$(VENV)/.installed: pyproject.toml .ci/need .ci/constraints.txt
	@PYTHON='$(PYTHON)' .ci/need
	@$(LOCK) .ci/install '$(PYTHON)' '$(VENV)' .installed .

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(LOCK) .ci/install '$(PYTHON)' '$(VENV)' .installed-dev '.[test,lint,bench]'

$(VENV)/.installed-fuzz: $(VENV)/.installed-dev
	@$(LOCK) .ci/install '$(PYTHON)' '$(VENV)' .installed-fuzz '.[fuzz]'

$(BUILT): $(VENV)/.installed $(SOURCES) $(PACKAGES)
	@$(LOCK) $(BIN)/python setup.py --quiet build_ext --inplace --parallel 4
	@touch $@

test: build $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 4 $(PYTEST_ARGS)

lint: build $(VENV)/.installed-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy --package leveret
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m cython_lint.cython_lint $(FOLDERS) tests bench

format: $(VENV)/.installed-dev
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

docs: $(VENV)/.installed
	$(BIN)/python docs/generate.py

bench: build $(VENV)/.installed-dev
	$(BIN)/python -m bench $(BENCH_ARGS)

# Instructions of the hot path against bench/baseline.toml. GUARD_ARGS='channel_ack_16 --profile /tmp/x' shows where they go.
guard: build $(VENV)/.installed-dev
	$(BIN)/python -m bench.guard $(GUARD_ARGS)

guard-baseline: build $(VENV)/.installed-dev
	$(BIN)/python -m bench.guard --renew $(GUARD_ARGS)

# Mixed sizes at constant depth, for CHURN_S seconds: files against what is live. An hour: CHURN_S=3600.
churn: build $(VENV)/.installed-dev
	$(BIN)/python -m bench.churn --seconds $(CHURN_S)

# Full load, with clients that come and go, for SOAK_S seconds: memory must stay flat.
soak: build $(VENV)/.installed-dev
	$(BIN)/python -m bench.soak --seconds $(SOAK_S)

# Leveret against Debian's RabbitMQ. SEED=7 SCRIPTS=1 performs one script again.
differential: build $(VENV)/.installed-dev
	LEVERET_DIFFERENTIAL_SCRIPTS=$(SCRIPTS) LEVERET_DIFFERENTIAL_SEED=$(SEED) LEVERET_DIFFERENTIAL_WITHIN_S=7200 \
	    $(BIN)/python -m pytest -rA -k scripts_show_the_same tests/differential

# The crash laboratory, the long version: some hours. SEED=7 ROUNDS=25 does the harm of one seed again.
crash: build $(VENV)/.installed-dev
	LEVERET_CRASH_ROUNDS=$(ROUNDS) LEVERET_CRASH_SEED=$(if $(filter file default undefined,$(origin SEED)),,$(SEED)) \
	    LEVERET_CRASH_PAUSE_S=20 LEVERET_CRASH_CALLS=25 LEVERET_CRASH_CUTS=3000 \
	    $(BIN)/python -m pytest -s -v tests/crash $(PYTEST_ARGS)

fuzz: build $(VENV)/.installed-fuzz
	PYTHON='$(BIN)/python' .ci/fuzz $(FUZZ_S)

wheel-smoke: build
	.ci/wheel-smoke '$(BIN)/python'

# The newest of everything that work on the tree needs, into .ci/constraints.txt.
pins:
	.ci/pins '$(PYTHON)'

clean:
	rm -rf build dist $(VENV) .make.lock *.egg-info
	find $(FOLDERS) tests bench -name '*.so' -delete
