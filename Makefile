# Two commands do all set-up: `make demo` and `make test`. `make venv` makes .venv alone.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
EXTRAS := $(VENV)/.installed-extras

.PHONY: demo test lint venv clean

demo: $(STAMP)
	$(BIN)/clipmill demo

test: lint
	$(BIN)/python -m pytest

lint: $(EXTRAS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

venv: $(EXTRAS)

# Remade only when what is installed changes.
$(STAMP): pyproject.toml constraints.txt setup.py loaders/_jpeg_part.c ingest/_planes.c
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Clipmill needs Python 3.11, 3.12 or 3.13; '$(PYTHON)' is `$(PYTHON) --version 2>&1`. Try: make venv PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

# What the tests need besides: the tools, and every extra. imgaug brings an OpenCV that needs a graphics library, which
# servers lack; both lie in one folder, so the one without it is put back on top.
$(EXTRAS): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,all]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps --force-reinstall opencv-python-headless
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
