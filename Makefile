# Everything runs in a virtual environment of its own, made by the first target that needs it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Most of the tests' time is compiling: the quick ones are optimised and fused less, which changes
# last bits at most. The second option is known to the jaxlib of constraints.txt; one that does not
# know it refuses to start.
COMPILED := JAX_COMPILATION_CACHE_DIR=$(CURDIR)/$(VENV)/compiled \
	JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.05 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=0
QUICKLY := XLA_FLAGS='--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false'

.PHONY: demo test test-slow lint clean
.DEFAULT_GOAL := demo

$(VENV)/.runtime: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test,lint]'
	touch $@

demo: $(VENV)/.runtime ## Posteriors for 10,000 SDSS galaxies, with figures, in demo/
	$(BIN)/tinsley demo --out demo

test: $(VENV)/.dev ## The test suite, on two cores
	$(QUICKLY) $(COMPILED) $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/.dev ## Tests that take minutes: whole population fits, the sampler
	$(COMPILED) $(BIN)/python -m pytest -n 2 --dist loadfile -m slow

lint: $(VENV)/.dev ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo
