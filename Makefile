# Every target makes .venv on first use. Without make: see README, "Set-up".
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
REIDSA := $(PY) -m reidsa_utils
# glibc otherwise gives every large block back to the system and takes it again: a tenth of a training step
export MALLOC_MMAP_MAX_ := 0
export MALLOC_TRIM_THRESHOLD_ := 100000000000
export MALLOC_TOP_PAD_ := 536870912

reproduce: $(VENV)/installed
	$(REIDSA) reproduce

# Tables 1 to 3; smaller: make tables PROFILE=smoke SEEDS=1; what would run, and for how long: make plan
PROFILE ?= laptop
SEEDS ?= 3
FORMS ?= softmax
JOBS ?= 2
BATCH = $(VENV)/bin/snakemake --cores $(JOBS) --config profile=$(PROFILE) seeds=$(SEEDS) forms=$(FORMS) $(CONFIG)
tables table1 table2 table3 curves: $(VENV)/installed
	$(BATCH) -- $@
controls: $(VENV)/installed  # notebook 08
	$(VENV)/bin/snakemake --cores $(JOBS) --config profile=$(PROFILE) seeds=$(SEEDS) $(CONFIG) -- $@
plan: $(VENV)/installed
	$(REIDSA) plan tables --jobs $(JOBS) profile=$(PROFILE) seeds=$(SEEDS) forms=$(FORMS) $(CONFIG)

weights: $(VENV)/installed  # the three small networks of 01, 03, 07 and 08: train them (40 minutes), write results/weights
	set -e; for run in b_p_ds-none b_p_ds_sa2-softmax b_p_ds_sa2-l1; do $(REIDSA) train --set profile=laptop \
	  --set variant=$${run%-*} --set form=$${run#*-} --set seed=3 --set threads=1 --set run_dir=runs/weights/$$run; done
	$(REIDSA) publish --weights runs/weights/*

test: $(VENV)/installed
	$(PY) -m pytest -n $(JOBS) --dist loadfile

speed: $(VENV)/installed
	$(REIDSA) speed

lab: $(VENV)/installed
	$(PY) -m jupyterlab notebooks

$(VENV)/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"Python {sys.version.split()[0]} found, 3.11 or newer needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --disable-pip-version-check --quiet -r requirements.txt
	@touch $@

.PHONY: reproduce tables table1 table2 table3 curves controls plan weights test speed lab
