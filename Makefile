# make demo   environment, then the main experiment: six schemes, trained short, tested long
# make test   environment, then checks and the first tier of tests: minutes
# make test-all   the same with every test
# make docs   environment, then the pages of all schemes, claims and modules: site/index.html
# make lock   requirements.txt anew from the ranges in pyproject.toml (needs uv)

# The newest supported Python that this machine has: on the path, of pyenv, or of uv.
PYTHON ?= $(shell for v in 3.13 3.12 3.11; do \
  for p in "python$$v" "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$v*/bin/python \
    "$$(uv python find --no-python-downloads $$v 2>/dev/null)"; do \
    "$$p" -c "import ensurepip, sys; sys.exit('%d.%d' % sys.version_info[:2] != '$$v')" \
      2>/dev/null && command -v "$$p" && exit; done; done)
WHY = $(if $(filter file,$(origin PYTHON)),the newest supported one here; make PYTHON=/path/to/python takes another,as given)
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
	@test -n "$(PYTHON)" || { echo 'No Python 3.13, 3.12 or 3.11 found: install one, or make PYTHON=/path/to/python.'; exit 1; }
	@echo "environment: $$($(PYTHON) --version) ($(PYTHON)), $(WHY)"
ifneq ($(UV),)
	$(UV) venv --quiet --clear --python "$(PYTHON)" .venv
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
