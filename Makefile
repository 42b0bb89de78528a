# Plain pip in a virtual environment; every target makes what it needs and may be called again.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: install demo test lint bench clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "policyopt needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version): make install PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "no virtual environment could be made in $(VENV); on Debian: apt-get install python3-venv"; exit 1; }
	@echo "installing policyopt into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install --progress-bar on --disable-pip-version-check -c constraints.txt torch || \
	  { echo "PyTorch could not be installed: is the package index reachable?"; exit 1; }
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]' || \
	  { echo "the dependencies could not be installed; the lines above say which"; exit 1; }
	@touch $@

demo: install
	@$(BIN)/policyopt train grpo

test: install
	@$(BIN)/python -m pytest -n auto

lint: install
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: install
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@$(BIN)/python benchmarks/step.py

clean:
	@rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
