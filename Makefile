# Everything a newcomer needs. Each target works on a bare machine with Python 3.11+ and make.

PYTHON ?= python3
BIN := .venv/bin
SOURCES := manage.py ordinis orders positions risk reconciliation tests
COVERED := --cov=ordinis --cov=orders --cov=positions --cov=risk --cov=reconciliation

.PHONY: setup run test test-long lint format bench lock

setup: .venv/.ready

# Rebuilt whenever the lock changes; pip checks every file against its hash.
.venv/.ready: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit("Ordinis needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.11 " + "setup") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	touch $@

run: setup
	$(BIN)/python manage.py start

test: lint
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not long"

test-long: setup
	$(BIN)/python -m pytest -n auto --dist worksteal --timeout 1800

lint: setup
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

bench: setup
	$(BIN)/python -m tests.bench

# Pins every dependency with hashes and no index addresses. Needs the network; commit the result.
# pip-tools lives in a folder of its own, so that it is not among what it pins.
lock:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet pip-tools
	.venv-lock/bin/pip-compile --quiet --extra=prod --extra=dev $(LOCK_FLAGS) -o requirements.lock pyproject.toml
	.venv-lock/bin/pip-compile --quiet --extra=prod $(LOCK_FLAGS) -o requirements-prod.lock pyproject.toml
	rm -rf .venv-lock

LOCK_FLAGS := --generate-hashes --strip-extras --no-annotate --no-header \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links
