# make rehearse   install everything, run a whole sale under a storm of 2,000 users, judge it
# make test       install everything, run the tests
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: rehearse test check format schema dashboards docs proofs bench house services compose lock \
	clean bare releases nightly

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Real servers for several tests at once share the cores: what failed beside others is asked once
# more, alone. Both answers are printed.
ASK = $(BIN)/pytest -n auto --dist loadfile -m "$(1)" || { test $$? -eq 1 && \
	$(BIN)/pytest --last-failed --last-failed-no-failures none -m "$(1)"; }

rehearse: services
	$(BIN)/flashsale rehearse stampede

test: services
	$(call ASK,not slow and not nightly)

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/unit/test_architecture.py

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

schema: $(INSTALLED)
	$(BIN)/flashsale report schema > flashsale/run/summary.schema.json

# Grafana's dashboards from tools/dashboards; a test holds the files to the code
dashboards: $(INSTALLED)
	$(BIN)/python -m tools.dashboards

# The site, into build/site: the reference pages from the code, then every link and anchor checked.
docs: $(INSTALLED)
	$(BIN)/python -m tools.reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# On the disk, whose syncs are part of what is proved
proofs nightly: export PYTEST_DEBUG_TEMPROOT ?= $(or $(TMPDIR),/tmp)

proofs: services
	$(call ASK,slow and not nightly)

# Hours, not minutes: many seeds, many power cuts
nightly: services
	$(BIN)/pytest -m nightly

bench: services
	$(BIN)/python -m benchmarks

# How many files a reader meets, and how they lean on each other
house: $(INSTALLED)
	@$(BIN)/python -m tools.house

# Of the packages above, at the versions above, those that an image needs.
PART := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate

compose: $(INSTALLED)
	$(BIN)/python -m flashsale.stack.nginx > deploy/compose/nginx.conf
	$(BIN)/python -m flashsale.stack.nginx kubernetes > deploy/kubernetes/base/nginx.conf

services: $(INSTALLED)
	@$(BIN)/flashsale services install

$(INSTALLED): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "flashsale needs Python 3.11 or newer: make PYTHON=python3.11 …" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "this Python has no venv: apt install python3-venv" >&2; exit 2; }
	@echo "installing the packages of requirements.lock into $(VENV): one to three minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation --editable .
	@touch $@

# `make lock UPGRADE=` keeps every version that pyproject.toml still allows.
UPGRADE ?= --upgrade

lock: $(INSTALLED)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet $(UPGRADE) --universal --python-version 3.11 \
		--generate-hashes --no-header --no-annotate --extra dev --extra docs \
		--output-file requirements.lock pyproject.toml > /dev/null
	sed -i '1i # Every package that `make` installs, by hash, for every Python. Made by `make lock`.' \
		requirements.lock
	cp requirements.lock deploy/image/runtime.lock
	cp requirements.lock deploy/image/build.lock
	$(PART) --output-file deploy/image/runtime.lock pyproject.toml > /dev/null
	echo hatchling | $(PART) --output-file deploy/image/build.lock - > /dev/null

# As root: `make bare RELEASE=trixie RUN="make test"` in a bare tree of that release (docs/machines.md)
RELEASE ?= trixie
RUN ?= make rehearse

bare:
	$(PYTHON) -m tools.bare $(RELEASE) $(RUN)

# The stampede on every Debian release's programs; NAMES="trixie sid" tries those alone
releases: $(INSTALLED)
	$(BIN)/python -m tools.releases $(NAMES)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	@echo "left: runs/, .flashsale/ and the programs in" \
		"$${FLASHSALE_SERVICES_DIR:-$${XDG_CACHE_HOME:-$$HOME/.cache}/flashsale/services}:" \
		"remove that folder, or run \`$(BIN)/flashsale services remove\` before \`make clean\`"
