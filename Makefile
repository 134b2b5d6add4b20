# Needs Linux or WSL2, git, and Python 3.11, 3.12 or 3.13 with venv.
# The first target that runs installs uv into .uv/ and the locked packages into .venv/ (3.7 GB).
#
#   make demo             draw synthetic portraits and run the whole pipeline on them
#   make ui [ROOT=demo]   serve the label page, the studio, Dagster and MLflow [default root: data]
#   make test             run make lint and the tests of everyday work (15 minutes)
#   make test-all         the same with the tests of clusters, stores elsewhere and drills
#   make lint             run the linters, the type checker and the import rules
#   make test-jax         run the tests of models and trainings on JAX
#   make drills           kill, fill disks, jump clocks … and record what was lost (an hour or more);
#                         one drill: make drills DRILL="kill-labels --times 5"
#   make results          render docs/results.md and docs/performance.md from bench/results/
#   make install          only install the packages
#
# To use another Python:  make test PYTHON=python3.12

PYTHON ?= python3
ROOT ?= data
UV := .uv/bin/uv
BIN := .venv/bin
# An extra that is installed stays: make install EXTRA=cluster, then make ui
EXTRA ?= $(patsubst .venv/.installed-%,%,$(wildcard .venv/.installed-*))
READY := .venv/.installed$(EXTRA:%=-%)

export UV_PYTHON_DOWNLOADS := never
export UV_PROJECT_ENVIRONMENT := .venv
export DAGSTER_DISABLE_TELEMETRY := 1
export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-jax ui lint install results drills

help:
	@sed -n '1,/^$$/s/^# //p' Makefile

demo: $(READY)
	@$(BIN)/gaip3 demo

ui: $(READY)
	@$(BIN)/gaip3 ui --root $(ROOT)

# Three workers for two cores, since tests wait for servers and disks. One thread each for BLAS, which
# takes up to 30 times as long with more beside other work, and for TensorFlow, which takes a tenth
# more of the processors' time.
PYTEST := OPENBLAS_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

test: lint
	@$(PYTEST) -m "not cluster and not remote and not drills"

test-all: lint
	@$(PYTEST)

# The extra stays in .venv afterwards.
test-jax: $(READY)
	@$(UV) sync --quiet --frozen --all-groups $(EXTRA:%=--extra %) --extra jax
	@KERAS_BACKEND=jax $(BIN)/pytest gaip3_pipeline_tests/models gaip3_pipeline_tests/training

# Most need root, strace and faketime; without them a drill says what it lacks and is skipped.
drills: $(READY)
	@$(BIN)/python -m drills --record $(DRILL)
	@[ -n "$(DRILL)" ] || { $(BIN)/python -m drills.mutations && $(BIN)/python -m drills.doors \
	  && $(BIN)/python -m drills.load labels; }

# docs/results.md and docs/performance.md from bench/results/
results: $(READY)
	@$(BIN)/python bench/render.py

lint: $(READY)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo --no-cache

install: $(READY)

$(READY): uv.lock pyproject.toml | $(UV)
	@echo "Installing the locked packages into .venv (3.7 GB; the first time takes minutes) …"
	@$(UV) sync --quiet --frozen --all-groups $(EXTRA:%=--extra %) --compile-bytecode --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')"
	@touch $@

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "gaip3 needs Python 3.11, 3.12 or 3.13; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv .uv || \
	  { rm -rf .uv; echo "$(PYTHON) has no venv; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@.uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
