# make demo    install into .venv and train on the pictures in examples/
# make test    the laws (ruff, mypy, import-linter, size budgets) and the tests
# make laws    ruff, mypy and import-linter alone
# make docs    write docs/config.md and docs/config.schema.json from the settings
# make clean   remove .venv and everything that tools have left

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
INSTALLED := .venv/installed

.PHONY: help demo test laws docs clean

help:
	@sed -n 's/^# //p' Makefile

demo: $(INSTALLED)
	@$(BIN)/weber demo

## The laws are checked beside the tests: alone they would leave a core idle.
test: $(INSTALLED)
	@rm -f .venv/laws.*; { $(MAKE) --no-print-directory laws > .venv/laws.txt 2>&1; echo $$? > .venv/laws.rc; } & \
	  echo "== pytest"; \
	  PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder; passed=$$?; \
	  wait; cat .venv/laws.txt; exit $$((passed + $$(cat .venv/laws.rc)))

laws: $(INSTALLED)
	@echo "== ruff"
	@$(BIN)/ruff check --quiet --output-format concise .
	@echo "== mypy"
	@$(BIN)/mypy --no-error-summary
	@echo "== import-linter"
	@$(BIN)/lint-imports --no-cache > .venv/lint-imports.txt 2>&1 || { cat .venv/lint-imports.txt; exit 1; }

docs: $(INSTALLED)
	@$(BIN)/python docs/build.py

clean:
	rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "weber needs Python 3.11 or newer; name it: make PYTHON=python3.12 ..."; exit 1; }
	@echo "== creating .venv"
	@$(PYTHON) -m venv .venv || { echo "python3 -m venv failed; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "== installing torch (the largest part; minutes)"
	@$(PIP) torch==2.13.0
	@echo "== installing weber and its other dependencies"
	@$(PIP) -e '.[dev]'
	@touch $@
