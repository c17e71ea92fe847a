# Each target sets up .venv by itself on a fresh machine (Python >= 3.11, make, pip with an index).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STORE ?= runs/quickstart/store
export RAY_AUTH_MODE ?= disabled

.PHONY: quickstart test test-slow lint fmt types bench

$(VENV)/installed: pyproject.toml .ci/constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c .ci/constraints.txt -e '.[dashboard,dev,onnx]'
	touch $@

quickstart: export RAY_AUTH_MODE = token
quickstart: $(VENV)/installed  ## the whole product once, on embedded real data
	$(BIN)/gan-ray quickstart --store $(STORE) --out runs/quickstart

test: $(VENV)/installed  ## what CI runs
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/installed  ## the longer chaos and quality runs
	$(BIN)/python -m pytest -m slow --timeout 1800

fmt: $(VENV)/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(VENV)/installed
	$(BIN)/mypy

lint: types  ## style, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

bench: $(VENV)/installed  ## speed, printed as tables; asserts nothing
	$(BIN)/python -m benchmarks
