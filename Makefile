# One command for each thing that a newcomer or a contributor does. Each makes what it needs first: a virtual
# environment in $(VENV), and in it the packages; a second call goes straight to work.

VENV ?= .venv
LABEL_STUDIO ?= .venv-label-studio
LABEL_STUDIO_ML ?= .venv-label-studio-ml
OUT ?= demo_output
ARGS ?=
PY := $(VENV)/bin/python
# where the tests and the demo find Label Studio and label-studio-ml, each in an environment of its own
export LABEL_STUDIO_PYTHON := $(abspath $(LABEL_STUDIO)/bin/python)
export LABEL_STUDIO_ML_PYTHON := $(abspath $(LABEL_STUDIO_ML)/bin/python)
# pip would turn 25,000 files into bytecode, which takes minutes and of which a run needs a tenth; that tenth is kept, or
# every process would make it anew: images with Python often turn that off
export PYTHONDONTWRITEBYTECODE :=
INSTALL := $(PY) -m pip install --no-compile

.DEFAULT_GOAL := help
.PHONY: help demo demo-napari demo-label-studio test check format bench wheel clean

help:  ## Show this list
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{printf "  %-18s %s\n", $$1, $$2}'
	@echo 'Python: make PYTHON=/path/to/python3.12 TARGET; options of pytest or of the benchmarks: make test ARGS="-k masks"'

demo: $(VENV)/.demo  ## Track the nuclei of a real time-lapse; writes pictures and labels to demo_output/
	$(VENV)/bin/sam2 demo --out $(OUT) --overwrite $(ARGS)

demo-napari: $(VENV)/.napari  ## Open napari with a sample and the plugin beside it
	$(PY) -m napari_sam2.demo $(ARGS)

demo-label-studio: $(VENV)/.label-studio $(LABEL_STUDIO)/.made  ## Label images in the browser: Label Studio and the backend
	$(PY) -m ls_backend.demo $(ARGS)

test: $(VENV)/.dev $(LABEL_STUDIO)/.made $(LABEL_STUDIO_ML)/.made  ## Run every test, those beside the reference implementation and end to end included
	.ci/with-display $(if $(ARGS),$(PY) -m pytest $(ARGS),.ci/test $(PY))

check: $(VENV)/.dev  ## Check style (ruff) and types (mypy)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.dev  ## Bring the code into the common style
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(VENV)/.dev  ## Measure speed and memory beside the reference implementation; see docs/benchmarks.md
	$(PY) -m benchmarks $(ARGS)

wheel: $(VENV)/.dev  ## Build the wheel into dist/
	$(PY) -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:  ## Remove the environments and what was built
	rm -rf $(VENV) $(LABEL_STUDIO) $(LABEL_STUDIO_ML) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.made:
	@.ci/environment $(VENV) $(PYTHON)
	@touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml
	@echo "Installing napari-sam2 and PyTorch into $(VENV): about 5 GB, a few minutes the first time"
	$(INSTALL) --editable ".[demo]"
	@touch $@

$(VENV)/.napari: $(VENV)/.made pyproject.toml
	@echo "Installing napari-sam2, napari and PyTorch into $(VENV): about 6 GB, a few minutes the first time"
	$(INSTALL) --editable ".[demo,napari,train]"
	@touch $@

$(VENV)/.label-studio: $(VENV)/.made pyproject.toml
	@echo "Installing napari-sam2, its Label Studio backend and PyTorch into $(VENV): about 5 GB, a few minutes"
	$(INSTALL) --editable ".[demo,label-studio,train]"
	@touch $@

$(LABEL_STUDIO)/.made: .ci/label-studio
	@.ci/label-studio $(LABEL_STUDIO) $(PYTHON)
	@touch $@

$(LABEL_STUDIO_ML)/.made: $(VENV)/.dev .ci/label-studio-ml
	@.ci/label-studio-ml $(LABEL_STUDIO_ML) $(PY)
	@touch $@

# sam2 is the reference implementation of the parity tests. It is built against the PyTorch that is already here (an
# isolated build would download another one), and without its CUDA extension.
$(VENV)/.dev: $(VENV)/.made pyproject.toml
	@echo "Installing napari-sam2, PyTorch and the tools of its developers into $(VENV): about 5 GB, a few minutes"
	$(INSTALL) --editable ".[dev,demo,train,medical,parity,napari,label-studio]"
	SAM2_BUILD_CUDA=0 $(INSTALL) --no-build-isolation --no-deps sam2==1.1.0
	@touch $@ $(VENV)/.demo $(VENV)/.napari $(VENV)/.label-studio
