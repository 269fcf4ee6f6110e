# make demo   environment, then the main experiment: six schemes, trained short, tested long
# make test   environment, then checks and the first tier of tests: minutes
# make test-all   the same with every test
# make docs   environment, then the pages of all schemes, claims and modules: site/index.html
# make lock   requirements.txt anew from the ranges in pyproject.toml (needs uv)

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  "$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
  && command -v "$$p" && break; done)
UV := $(shell command -v uv)
RUN := .venv/bin/python

.PHONY: demo test test-all docs lock clean
.DELETE_ON_ERROR:

demo: .venv/ready
	$(RUN) -m experiments.sweep --explorer

test: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	$(RUN) -m pytest -n auto --dist loadfile -m 'not slow'

test-all: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	$(RUN) -m pytest -n auto --dist loadfile

docs: .venv/ready
	$(RUN) -m experiments.site --out=site

.PHONY: .venv
.venv: .venv/ready

.venv/ready: requirements.txt
	@test -n "$(UV)$(PYTHON)" || { echo 'No Python 3.11, 3.12 or 3.13 found: install one, or make PYTHON=/path/to/python.'; exit 1; }
ifneq ($(UV),)
	$(UV) venv --quiet --clear --python "$(or $(PYTHON),3.12)" .venv
	$(UV) pip install --quiet --python $(RUN) -r requirements.txt
else
	$(PYTHON) -m venv --clear .venv
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
endif
	@touch $@

lock:
	uv pip compile --quiet --universal --python-version 3.11 --extra test --no-annotate \
	  --custom-compile-command 'make lock' pyproject.toml -o requirements.txt

clean:
	rm -rf .venv results site
