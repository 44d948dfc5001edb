# make demo       install into .venv and run the full pipeline on the text shipped here (a few minutes on 2 cores)
# make test       install what tests need and run the fast ones (5 to 10 minutes on 2 cores); make test-all adds the long ones
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python

# Threads that wait spin for a moment, then sleep. On two quiet cores experiment=local reads 5,200 tokens/s so, 4,700 as
# libgomp waits by default and 3,700 if they sleep at once; spinning on a shared machine took 6.9 minutes for what takes one.
export GOMP_SPINCOUNT ?= 20000

.PHONY: demo test test-all lint install clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(RUN) prepare.py experiment=demo
	$(RUN) train.py experiment=demo
	$(RUN) benchmark.py experiment=demo

test: $(VENV)/installed-dev
	$(RUN) -m pytest -n 2 --dist loadfile

test-all: $(VENV)/installed-dev
	$(RUN) -m pytest -m "slow or not slow"

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .

install: $(VENV)/installed

# torch comes first and by itself: its CPU build where there is no GPU, so that no CUDA packages are pulled in.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("error: Python 3.11 or newer is needed, this is %d.%d; set PYTHON=" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: requirements.txt | $(VENV)/bin/python
	$(RUN) -m pip install --disable-pip-version-check -q -r requirements.txt
	touch $@

$(VENV)/installed-dev: requirements-dev.txt requirements-extra.txt $(VENV)/installed
	$(RUN) -m pip install --disable-pip-version-check -q -r requirements-dev.txt
	touch $@

clean:
	rm -rf runs
