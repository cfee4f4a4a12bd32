# Everything runs in its own environment, .venv, which is rebuilt when requirements.txt changes.
PYTHON ?= python3
BIN := .venv/bin
CI_DEMO ?= output/ci-demo

.PHONY: demo test test-oldest slow lint docs notebook ci-demo env extras clean

demo: env  ## few-shot training on real digits; a table and a figure; METHODS=all for every method
	$(BIN)/python sweep.py configs/sweeps/demo.yaml $(if $(METHODS),--methods "$(METHODS)")

# One thread per worker: two workers with two threads each would compete for two cores.
test: env  ## the tests that are not marked slow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-oldest: .venv-oldest/installed  ## the same with the oldest versions that are supported
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n 2

slow: env  ## the tests marked slow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --dist worksteal --durations 15

lint: env  ## style, imports, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

SITE := "mkdocs-material>=9.8.2" "mkdocstrings[python]>=1.0.8"

docs: env  ## the site, in output/site; a broken link or a page that the menu lacks is an error
	$(BIN)/python -c 'import material, mkdocstrings' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check $(SITE)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

NOTEBOOK := "nbmake>=1.5.5" "ipykernel>=7.4.0"

notebook: env  ## the notebook, run from its first cell to its last
	$(BIN)/python -c 'import nbmake, ipykernel' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check $(NOTEBOOK) || \
		{ echo "nbmake not installed: the notebook is not run" >&2; exit 0; }; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbmake docs/notebooks

ci-demo: env  ## the demo with 3 epochs per run, and its table, figure and report
	$(BIN)/python sweep.py configs/sweeps/demo.yaml --output-dir "$(CI_DEMO)" OPTIM.MAX_EPOCH 3
	test -s "$(CI_DEMO)/table.md" && test -s "$(CI_DEMO)/figure.png"
	$(BIN)/python parse_test_res.py "$(CI_DEMO)" --format html
	test -s "$(CI_DEMO)/report.html"

env: .venv/installed

.venv/installed: requirements.txt
.venv-oldest/installed: requirements-oldest.txt
.venv/installed .venv-oldest/installed:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

EXTRAS := "transformers>=5.24.0" "sentencepiece>=0.2.3" "onnx>=1.23.2" "onnxscript>=0.7.2" "onnxruntime>=1.32.0"

extras: env  ## optional packages, without which some tests are skipped: requirements.txt names them
	for package in $(EXTRAS); do \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$package" || \
		echo "$$package not installed: the tests that need it are skipped" >&2; done

clean:  ## remove the environments and all runs
	rm -rf .venv .venv-oldest output
