# Everything one does with the platform. Needs make and Python 3.11 or newer, nothing else.
# `make` alone lists the targets. Written for GNU make 3.81 (macOS) and any POSIX shell.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
# Stamps: what is newer than its stamp is installed again. They stand inside .venv and go with it.
MADE := $(VENV)/.made
RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev

# The user's own Python and pip settings must not redirect what is imported or where things go.
unexport PYTHONHOME PYTHONPATH PIP_PREFIX PIP_PYTHON PIP_REQUIRE_HASHES PIP_REQUIRE_VIRTUALENV PIP_TARGET PIP_USER
# uv reads none of pip's settings: hand over the two without which a company network has no packages.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
ifdef PIP_CERT
export SSL_CERT_FILE ?= $(PIP_CERT)
endif

# An environment that moved with its folder, or whose Python is gone, is made anew.
$(shell test -x $(BIN)/python && grep -qxF "$(CURDIR)" $(MADE) 2>/dev/null || rm -f $(MADE) $(RUNTIME) $(DEV))

##@ Use
.PHONY: install run
install: $(RUNTIME) ## Set up .venv with pinned packages; .venv/bin/coalition exists afterwards

run: $(RUNTIME) ## Start the platform with the demo coalition on 127.0.0.1:8000
	@$(BIN)/coalition demo --serve --if-empty

##@ Develop
.PHONY: test check bench lock clean help
# A process per core, each with a server of its own. ARGS='-n0 --pdb' stays in one, as a debugger needs it.
test: $(DEV) ## Run all tests; ARGS='-k earn' picks some
	@$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadgroup $(ARGS)

# All of them even when one fails, side by side: mypy keeps one core busy while the rest share the other.
CHECKS := types lint format imports dependencies house-rules schema migrations
check: $(DEV) ## Lint, types, import contracts, house rules, schema snapshot, migrations
	@$(MAKE) --no-print-directory --keep-going $(if $(filter -j%,$(MAKEFLAGS)),,-j3) \
	  $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) $(CHECKS:%=check-%)
	@echo "All checks passed: $(CHECKS)"

bench: $(DEV) ## Run the benchmarks: prints a table, writes bench.json
	@$(BIN)/coalition bench

lock: $(MADE) ## Resolve pyproject.toml into the requirements files; UPGRADE=1 takes newer versions
	@$(COMPILE) pyproject.toml --output-file requirements.txt
	@$(COMPILE) --group dev --constraints requirements.txt --output-file requirements-dev.txt
	@$(COMPILE) --group uv --output-file requirements-uv.txt

clean: ## Remove what the other targets made; data (.coalition) stays
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis bench.json
	@find api domain partners settlement tests -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "%s\n", substr($$0, 5) } \
	  /^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# --- The parts of `make check` ----------------------------------------------------------------------

# For tools that talk when all is well: shown only when it is not.
quietly = @output=$$($(1) 2>&1) || { printf '%s\n' "$$output"; exit 1; }

.PHONY: $(CHECKS:%=check-%)
check-types:
	@$(BIN)/mypy --no-error-summary
check-lint:
	@$(BIN)/ruff check --quiet
check-format:
	@$(BIN)/ruff format --check --quiet || { echo "Run: $(BIN)/ruff format"; exit 1; }
check-imports:
	$(call quietly,$(BIN)/lint-imports)
check-dependencies:
	$(call quietly,$(BIN)/deptry .)
check-house-rules:
	$(call quietly,$(BIN)/python -m pytest -q tests/test_tidy.py tests/test_tidy_schema.py)
check-schema:
	$(call quietly,$(BIN)/coalition schema diff api/graphql/schema.graphql)
check-migrations:
	$(call quietly,$(BIN)/python -m pytest -q tests/test_migrations.py)

# --- Installation -----------------------------------------------------------------------------------

# Hashes and exact versions decide what is installed, so nothing is resolved (--no-deps) and nothing is
# built from source, which would download unpinned build tools (--only-binary).
EXACTLY := --require-hashes --no-deps --only-binary :all:
PIP := -m pip --disable-pip-version-check --no-input
UV = $(BIN)/uv pip install --quiet --python $(BIN)/python
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)

# The first of these that is new enough makes the environment; PYTHON=... names another.
PYTHON ?= python3 python3.14 python3.13 python3.12 python3.11

# A Python that has pip installs into the environment from outside, which saves the seconds of putting
# pip inside (and Debian without python3-venv could not).
$(MADE): requirements-uv.txt
	@for python in $(PYTHON); do \
	  "$$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; python=; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "No Python 3.11 or newer among: $(PYTHON). Name one: make install PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$python" -V)"; \
	if "$$python" $(PIP) --version >/dev/null 2>&1; \
	then "$$python" -m venv --clear --without-pip $(VENV) && set -- "$$python" $(PIP) --python $(BIN)/python; \
	else "$$python" -m venv --clear $(VENV) && set -- $(BIN)/python $(PIP); \
	fi && \
	"$$@" install --quiet $(EXACTLY) --requirement requirements-uv.txt
	@echo "$(CURDIR)" >$@

# Where uv cannot fetch (an index that only pip's files name), pip can: slower, from the same hashes.
# Bytecode is compiled at once and in parallel, or the first start would do it module by module.
install_requirements = $(UV) $(EXACTLY) --compile-bytecode --requirements $(1) \
  || { $(BIN)/python $(PIP) --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null; \
       $(BIN)/python $(PIP) install $(EXACTLY) --requirement $(1); }

$(RUNTIME): $(MADE) requirements.txt pyproject.toml
	@echo "Installing requirements.txt"
	@$(call install_requirements,requirements.txt)
	@$(UV) --no-deps --offline --editable .
	@touch $@

$(DEV): $(RUNTIME) requirements-dev.txt
	@echo "Installing requirements-dev.txt"
	@$(call install_requirements,requirements-dev.txt)
	@touch $@
