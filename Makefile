# make demo: set everything up, run the main job.   make test: set everything up, run every test.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test results lab docs readme export refresh wheel pins browser hooks clean

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
config := settings.ini setup.py pyproject.toml pins.txt
enter := . "$(VENV)/bin/activate" &&
run_demo = papermill nbs/00_tour.ipynb _demo/00_tour.ipynb --cwd nbs -k python3 -r out "$(CURDIR)/_demo"
# The kernel, the tools and the packages are those of $(VENV), whatever else the user has installed.
unexport PYTHONPATH PYTHONHOME
# Without bytecode every process compiles all of torch and diffusers again, 15 s and more each.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONNOUSERSITE := 1
export JUPYTER_PREFER_ENV_PATH := 1

help:
	@echo 'make demo     learn a task from a handful of photographs, score it, leave everything in _demo/'
	@echo 'make test     run every test'
	@echo 'make results  measure again what depends on the weights: demo, sampler, speed'
	@echo 'make lab      open the notebooks in JupyterLab'
	@echo 'make export   notebooks -> gen2gen/ and README.md'
	@echo 'make refresh  execute every notebook in place, so that its stored outputs are current'
	@echo 'make docs     build the site into _docs/'
	@echo 'make wheel    build the wheel into dist/'
	@echo 'make pins     write pins.txt from what is installed in $(VENV)'
	@echo 'make hooks    merge and clean notebooks in git by cell'
	@echo 'make clean    remove everything that make made, .venv included'

demo: $(VENV)/.run
	@mkdir -p _demo
	$(enter) $(run_demo)
	@cat _demo/summary.txt

test: $(VENV)/.dev browser
	$(enter) python -m pytest -q -n $(JOBS) --dist loadgroup tests

# The figures of the README and of the site that depend on the weights.
results: $(VENV)/.dev
	@mkdir -p _demo
	$(enter) $(run_demo) -r keep .
	$(enter) python tests/nbrun.py --slow nbs/09b_evaluate.ipynb nbs/97_bench.ipynb

lab: $(VENV)/.dev
	$(enter) jupyter lab --notebook-dir . nbs/index.ipynb

docs: $(VENV)/.dev
	$(enter) python tools/docs.py site

readme: $(VENV)/.dev
	$(enter) python tools/docs.py readme

export: $(VENV)/.dev
	$(enter) nbdev_export && nbdev_clean && python tools/docs.py readme

refresh: $(VENV)/.dev
	$(enter) python tests/nbrun.py && nbdev_clean

wheel: $(VENV)/.dev
	$(enter) pip wheel . --no-deps --no-build-isolation --wheel-dir dist

pins: $(VENV)/.dev
	$(enter) python tests/pins.py > pins.new && mv pins.new pins.txt

hooks: $(VENV)/.dev
	$(enter) nbdev_install_hooks

# Debian's Chromium, where there is the right to install it; elsewhere the browser tests say why they are skipped.
browser:
	@for b in chromium chromium-browser google-chrome; do if command -v $$b >/dev/null; then exit 0; fi; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; \
	then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null \
	  || echo 'Chromium could not be installed.'; \
	else echo 'No Chromium on PATH: the browser tests will be skipped. To run them: sudo apt-get install chromium'; fi

# A stamp is written only when the whole installation succeeded, so an interrupted one starts again.
$(VENV)/.run: $(config)
	$(call install,.)
	@touch $@

$(VENV)/.dev: $(config)
	$(call install,.[dev])
	@touch $@ "$(VENV)/.run"

define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
  { echo 'gen2gen needs Python 3.10 or newer as "$(PYTHON)". Name another one: make $(MAKECMDGOALS) PYTHON=python3.12' >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
  { echo 'This Python cannot make virtual environments. On Debian or Ubuntu: sudo apt-get install python3-venv' >&2; exit 1; }
$(PYTHON) -m venv "$(VENV)"
$(enter) python -m pip install --disable-pip-version-check --no-compile -q -c pins.txt -e '$(1)'
endef

clean:
	rm -rf .venv _docs _proc _executed _demo build dist *.egg-info .pytest_cache .ruff_cache
