# `make help` lists the targets. Tools are called through .venv, never through an activated shell.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup demo test sanitize check docs format results schema clean

PYTHON ?= python3
# The one pin of torch. TORCH_INDEX: the CPU or CUDA wheel index that PyTorch's install page names.
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
PIP := .venv/bin/python -m pip --disable-pip-version-check
INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
DEMO := runs/demo

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

.venv/.ok: pyproject.toml constraints.txt setup.py $(wildcard compressnet/kernels/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	$(PIP) install -q $(INDEX) -c constraints.txt $(TORCH)
	$(PIP) install -q $(INDEX) -c constraints.txt -e '.[dev,track]'
	@.venv/bin/compressnet --version
	@touch $@

setup: .venv/.ok ## install into .venv: torch by exact pin, then the project

demo: .venv/.ok ## train, evaluate and apply on built-in photographs: 1 to 6 minutes
	@rm -rf $(DEMO)
	.venv/bin/compressnet train fip_sample -o $(DEMO)
	.venv/bin/compressnet eval $(DEMO) --pictures $(DEMO)/pictures
	.venv/bin/compressnet data samples -o $(DEMO)/photos > $(DEMO)/photos.txt
	.venv/bin/compressnet apply $(DEMO) $(DEMO)/photos/chelsea.png -o $(DEMO)/chelsea_smoothed.png
	@echo "input | operator | network | error x 8: $(DEMO)/pictures/chelsea.png"

test: .venv/.ok ## run the tests
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2

# Of a copy, as what is built here lies beside its source. Python's own memory would be leaks without end.
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -g1 -fno-var-tracking
sanitize: .venv/.ok ## run the tests of the C kernels under AddressSanitizer and UndefinedBehaviorSanitizer
	rm -rf build/sanitize && mkdir -p build/sanitize
	cp -r compressnet cli tests pyproject.toml setup.py README.md build/sanitize/
	rm -f build/sanitize/compressnet/kernels/*.so
	cd build/sanitize && CFLAGS="$(SANITIZE)" LDFLAGS="$(SANITIZE)" ../../.venv/bin/python setup.py -q build_ext --inplace
	cd build/sanitize && LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0 \
	    OMP_NUM_THREADS=1 ../../.venv/bin/python -m pytest -q tests/kernels tests/models/test_can_winograd.py tests/models/test_can_training.py

check: .venv/.ok ## lint, formatting, types
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy

docs: .venv/.ok ## build the manual: docs/_build/html/index.html
	.venv/bin/python -m sphinx -W --keep-going -n -q docs docs/_build/html
	@echo docs/_build/html/index.html

format: .venv/.ok ## format and fix what can be fixed
	.venv/bin/python -m ruff format .
	.venv/bin/python -m ruff check --fix .

results: .venv/.ok ## make the tables of RESULTS.md, README.md and docs/ from results/*.json
	.venv/bin/compressnet results --write

schema: .venv/.ok ## make recipes/schema.json from the signatures of everything registered
	.venv/bin/compressnet recipes schema > recipes/schema.json

clean: ## remove what was built (not .venv, not runs)
	rm -rf build dist docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache
