# One command each. Every target makes .venv and builds by itself when needed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
BUILT  := $(VENV)/.built
SOURCES := $(shell find codec storage broker -name '*.pyx' -o -name '*.pxd' -o -name '*.toml') setup.py

.PHONY: run build test lint bench clean

run: build
	$(BIN)/leveret start

build: $(BUILT)

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet 'setuptools>=65' wheel 'Cython>=3.1,<4'
	$(BIN)/pip install --quiet --no-build-isolation --editable '.[test,lint,fuzz]'
	touch $@

$(BUILT): $(VENV)/.installed $(SOURCES)
	$(BIN)/python setup.py --quiet build_ext --inplace --parallel 4
	touch $@

test: build
	$(BIN)/python -m pytest -n 4

lint: build
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cython-lint codec storage broker

clean:
	rm -rf build dist $(VENV) *.egg-info
	find . -name '*.so' -not -path './.venv/*' -delete
