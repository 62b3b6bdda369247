# `make demo` and `make test` need Python 3.11 or newer and PyPI; everything goes into .venv.
PYTHON ?= python3
BIN := .venv/bin

# Byte code is kept, whatever the environment says: the tests start hundreds of processes, each of which would compile
# the package again.
export PYTHONDONTWRITEBYTECODE :=

# What `gradatim check` runs other people's programs with, on Debian and Ubuntu; needs root. npm conflicts with some
# builds of nodejs, so it comes last and on its own.
TOOLCHAINS := bubblewrap util-linux gcc g++ libboost-dev libssl-dev default-jdk-headless nodejs golang-go

.PHONY: install demo test lint ratios proof docs docs-site toolchains clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch .venv/installed

demo: install
	$(BIN)/gradatim study demo

test: install
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder -m 'not slow and not gpu'

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy gradatim

ratios: install
	$(BIN)/python benchmarks/regression.py

toolchains:
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(TOOLCHAINS)
	command -v npm > /dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends npm
	command -v tsc > /dev/null || npm install --silent --global typescript

docs: install
	$(BIN)/python docs/write_reference.py

docs-site: install
	$(BIN)/mkdocs build --strict --quiet

proof: install
	$(BIN)/python -m pytest -m 'slow and not gpu'

clean:
	rm -rf .venv build dist *.egg-info
