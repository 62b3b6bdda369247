# `make demo` and `make test` need Python 3.11 or newer and PyPI; everything goes into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test lint proof docs clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch .venv/installed

demo: install
	$(BIN)/gradatim study demo/baseline demo/sequential demo/incremental demo/hybrid --seeds 2 --out runs/demo

test: install
	$(BIN)/python -m pytest -n 2 -m 'not slow and not gpu'

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy gradatim

docs: install
	$(BIN)/python docs/write_reference.py

proof: install
	$(BIN)/python -m pytest -m 'slow and not gpu'

clean:
	rm -rf .venv build dist *.egg-info
