# Everything runs in an environment of its own, .venv; it is remade when requirements.txt changes.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint env clean

demo: env  ## few-shot training on real digits; a table and a figure; METHODS=all for every method
	$(BIN)/python sweep.py configs/sweeps/demo.yaml $(if $(METHODS),--methods "$(METHODS)")

test: env  ## the tests that are not marked slow
	$(BIN)/python -m pytest -n 2

lint: env  ## style, imports, formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

env: .venv/installed

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

clean:  ## remove the environment and the runs
	rm -rf .venv output
