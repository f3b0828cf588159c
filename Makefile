# make demo       install what is missing, run the whole pipeline on a bundled data set in about a minute
# make test       install what is missing, lint, run every test but the slow ones
# make test-fast  the tests of single parts
# make test-slow  faults, kills, browsers, several processes, clusters, real data
# make install-ray  what --on ray needs
# make fuzz     ten thousand odd files and settings
# make nightly  the long forms of the tests that draw faults and odd files
# make reference   rewrite what is generated from the settings and the metrics
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# A file's tests stay together on one of two processes, which share what the file trains; code is compiled once.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: install install-ray demo test test-fast test-slow lint fuzz nightly reference

install: $(VENV)/.installed

$(VENV)/.installed: requirements.txt requirements-pack.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --retries 20 --resume-retries 100 --requirement requirements.txt --requirement requirements-pack.txt
	@touch $@

install-ray: $(VENV)/.installed-ray

$(VENV)/.installed-ray: requirements-ray.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --retries 20 --resume-retries 100 --requirement requirements-ray.txt
	@touch $@

demo: install
	@$(BIN)/python src/demo.py

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

test: install lint
	@$(PYTEST) -m "not slow"

test-fast: install
	@$(PYTEST) -m "not slow and not integration"

test-slow: install install-ray
	@$(PYTEST) -m slow

fuzz: install
	@FOLDCRAFT_FUZZ=10000 $(BIN)/python -m pytest tests/test_fuzz.py -n 0

nightly: fuzz
	@FOLDCRAFT_FAULTS=200 $(BIN)/python -m pytest tests/test_faults.py -n 0

reference: install
	@$(BIN)/python tools/reference.py
