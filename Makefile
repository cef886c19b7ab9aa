# Everything installs itself into .venv, from the package registries.
PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv

.PHONY: help demo demo-aws native test test-quick lint types layers docs check lock bench fuzz soak django-suites clean

help:
	@echo "make demo       save and read encrypted patients of two clinics on SQLite"
	@echo "make demo-aws   the same with two KMS regions, one of which is then killed"
	@echo "make native     build the native code into .venv; takes a C compiler and OpenSSL's headers"
	@echo "make test       run the tests on SQLite and on every database server that answers"
	@echo "make test-quick run the quick tests, on SQLite alone; says what it leaves out"
	@echo "make check      lint, types, layers, docs"
	@echo "make bench      measure, side by side with plain fields and with peers"
	@echo "make fuzz       throw RUNS (100000) hostile inputs at each parser"
	@echo "make soak       load keys and data for MINUTES (10) while everything fails, and look for losses"
	@echo "make django-suites  run Django's own suites with encrypted fields; RECORD=yes renews the record of what is refused"
	@echo "make lock       renew requirements/dev.txt"

.venv/.installed: requirements/dev.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes --requirement requirements/dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

demo: .venv/.installed
	$(BIN)/python scripts/demo.py

demo-aws: .venv/.installed
	$(BIN)/python scripts/demo_aws.py

native: .venv/.installed
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --reinstall ./native

test: .venv/.installed
	$(BIN)/python scripts/test.py

test-quick: .venv/.installed
	$(BIN)/python scripts/test.py --quick

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed
	$(BIN)/mypy

layers: .venv/.installed
	$(BIN)/lint-imports

docs: .venv/.installed
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build

check: lint types layers docs

lock: .venv/.installed
	$(UV) pip compile pyproject.toml --group dev --constraint requirements/newest.txt --universal --python-version 3.11 \
	  --upgrade --quiet \
	  --no-emit-index-url --generate-hashes --no-header --no-annotate --output-file requirements/dev.txt
	$(UV) pip compile pyproject.toml --group fuzz --universal --python-version 3.11 --constraint requirements/dev.txt \
	  --quiet --no-emit-index-url --generate-hashes --no-header --no-annotate --output-file requirements/fuzz.txt

bench: .venv/.installed
	$(BIN)/python -m benchmarks

# atheris instruments what it imports, so fuzzing has an environment of its own.
fuzz/.venv/.installed: .venv/.installed requirements/fuzz.txt
	$(UV) venv --quiet --clear --python $(BIN)/python fuzz/.venv
	$(UV) pip install --quiet --python fuzz/.venv/bin/python --require-hashes --requirement requirements/fuzz.txt
	touch $@

RUNS ?= 100000
TARGETS ?= $(notdir $(wildcard fuzz/corpus/*))

fuzz: fuzz/.venv/.installed
	for target in $(TARGETS); do \
	  echo "$$target"; fuzz/.venv/bin/python -m fuzz $$target -runs=$(RUNS) -max_len=4096 -rss_limit_mb=1024 -timeout=5 \
	    -verbosity=0 -print_final_stats=1 || exit 1; \
	done

MINUTES ?= 10

soak: .venv/.installed
	$(BIN)/python scripts/soak.py --minutes $(MINUTES)

# The record is of the newest Django, so its environment is what to run this with.
SUITES_PYTHON ?= .tox/newest/bin/python

django-suites:
	$(SUITES_PYTHON) scripts/django_suites.py $(if $(RECORD),--record)

clean:
	rm -rf .venv fuzz/.venv .tox build dist docs/_build benchmarks/.envs tests/interop/.envs tests/other_libraries/.keysets
