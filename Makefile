# The two commands of the README: `make sweep` and `make test`. Both make .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= data/phantoms
# A new folder each time: a run is never written over.
OUT ?= runs/phantoms-$(shell date +%Y%m%d-%H%M%S)

.PHONY: setup dev sweep test test-slow test-long view lint clean

# Compiling all that is installed takes a minute or two, what a sweep imports of it a third of that.
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check
IMPORTED := trustsweep.distributed.sweep.job, trustsweep.distributed.workers.worker, \
	trustsweep.distributed.report.page, ray.tune, ray.dashboard.dashboard, ray.dashboard.agent, \
	matplotlib.pyplot, torch._dynamo

# What a sweep needs.
setup: $(VENV)/.installed

# torchattacks pins an old requests and pulls torchvision, though its attacks use neither.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	$(PIP) --no-deps torchattacks==3.5.1
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -W ignore -c "import $(IMPORTED)"
	touch $@

# What the tests need beside it. What cannot be compiled is a template of some package, no Python.
dev: $(VENV)/.developing

$(VENV)/.developing: $(VENV)/.installed
	$(PIP) --editable ".[dev]"
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	touch $@

sweep: setup
	$(BIN)/trustsweep prepare --layout phantoms --set count=300 --out $(DATA)
	$(BIN)/trustsweep sweep quick --data $(DATA) --out $(OUT)

# The packages laid out as in the wheel, for tools that read files and never import them.
view:
	rm -rf build/view
	mkdir -p build/view/trustsweep
	cp -R trustsweep/. data_pipelines trainables search_spaces distributed cluster build/view/trustsweep

lint: dev view
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd build/view && ../../$(BIN)/lint-imports ../../pyproject.toml

# Two processes, a file's tests in one of them, as they share what they prepare.
test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not long"

# Real clusters and whole sweeps, in one process, the most telling first. With WITHIN=45, those that
# have not begun after so many minutes are skipped, and said to be.
test-slow: dev
	$(BIN)/python -m pytest -m "slow and not long" $(if $(WITHIN),--within $(WITHIN) -rs)

# Sweeps whose processes, nodes, disk and storage are taken from them: an hour and more. Before a
# release, and when what they test has changed.
test-long: dev
	$(BIN)/python -m pytest -m long -rs

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
