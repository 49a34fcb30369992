# Every target makes .venv on first use. Without make: see docs/setup.md.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
REIDSA := $(PY) -m reidsa_utils
# Runs at a time, and settings of a batch: make tables PROFILE=smoke SEEDS=1 FORMS=softmax,l1
JOBS ?= 2
SETTINGS = $(if $(PROFILE),profile=$(PROFILE)) $(if $(SEEDS),seeds=$(SEEDS)) $(if $(FORMS),forms=$(FORMS)) $(CONFIG)
# Where the book is built. Its links into the repository and to Binder and Colab need an address:
# make book REPOSITORY=https://github.com/OWNER/NAME
BOOK ?= docs/_build
BATCH = $(VENV)/bin/snakemake --cores $(JOBS) $(if $(strip $(SETTINGS)),--config $(SETTINGS))
TARGETS = reproduce tables table1 table2 table3 curves controls

# Three trainings share two cores to the end; two and then one would leave a core idle.
reproduce: JOBS := $(if $(filter 2,$(JOBS)),3,$(JOBS))

# The main job; the tables of the paper; notebook 08. More targets: reidsa_utils/settings/grid.toml
$(TARGETS): $(VENV)/installed
	$(BATCH) -- $@
plan: $(VENV)/installed  # what would run, and for how long: make plan TARGET=table3
	@$(BATCH) --dry-run --quiet all -- $(or $(TARGET),tables)

weights: $(VENV)/installed  # the three small networks of 01, 03, 07 and 08: train them (40 minutes), write results/weights
	set -e; for run in b_p_ds-none b_p_ds_sa2-softmax b_p_ds_sa2-l1; do $(REIDSA) train --profile laptop \
	  --variant $${run%-*} --form $${run#*-} --seed 3 --threads 1 --run-dir runs/weights/$$run; done
	$(REIDSA) publish --weights runs/weights/*

test: $(VENV)/installed
	@if command -v npm > /dev/null; then $(MAKE) --no-print-directory docs/node_modules/installed; fi
	$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

speed: $(VENV)/installed
	$(REIDSA) speed

lab: $(VENV)/installed
	$(PY) -m jupyterlab notebooks

book: $(VENV)/installed docs/node_modules/installed  # the notebooks and docs/ as a site
	rm -rf $(BOOK)/html $(BOOK)/doctrees
	$(PY) -m sphinx -nW --keep-going -q -c docs -d $(BOOK)/doctrees . $(BOOK)/html
	@echo "Open $(BOOK)/html/index.html"

# The stored networks; without npm the page is made without its network. make book links the page.
explorer: $(VENV)/installed  # a page that shows ranked lists and maps, read from disk
	@if command -v npm > /dev/null; then $(MAKE) --no-print-directory docs/node_modules/installed || true; fi
	$(REIDSA) explore --out build/explorer $(foreach run,b_p_ds-none b_p_ds_sa2-softmax b_p_ds_sa2-l1,market1501-rendered-laptop-$(run)-paper-erasing-e10-s3)

docs/node_modules/installed: docs/package-lock.json
	@command -v npm > /dev/null || { echo "npm not found: the book shows formulas with MathJax, which npm brings; install Node.js 18 or newer with npm (Debian: apt-get install nodejs npm; others: nodejs.org)"; exit 1; }
	npm ci --prefix docs --no-audit --no-fund --silent
	@touch $@

$(VENV)/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"Python {sys.version.split()[0]} found, 3.11 or newer needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --disable-pip-version-check --quiet -r requirements.txt
	@touch $@

.PHONY: $(TARGETS) plan weights test speed lab book explorer
