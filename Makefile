# `make train` from a fresh clone to a trained agent and its report; `make test` for the whole test suite.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
fail = { echo '$(1)' >&2; exit 1; }

.PHONY: setup train test test-slow check clean

train: setup
	$(BIN)/python -m trainers.fit $(ARGS)

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

# trials that the whole suite leaves out: kills, faults, learning curves
test-slow: setup
	$(BIN)/python -m pytest -m slow $(ARGS)

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layout.py

# The JSON line of the check is for programs; what a person should read of it is on standard error.
setup: $(VENV)/.installed
	@$(BIN)/python -m trainers.doctor --render-only --install-gl >/dev/null

$(VENV)/.installed: pyproject.toml
	@command -v $(PYTHON) >/dev/null || $(call fail,No $(PYTHON) here: install Python 3.11 or newer or name another one: make PYTHON=python3.12)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| $(call fail,Python 3.11 or newer is needed and $(PYTHON) is older: make PYTHON=python3.12)
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| $(call fail,$(PYTHON) cannot make virtual environments: run `sudo apt-get install -y $(notdir $(PYTHON))-venv` and try again)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev,tensorboard]'
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
