# Two commands for a machine that has python3 and make: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
SUBJECTS := tpavi sampler_latency metrics inference training_step loading import_time
RESULTS = benchmarks/results/$(shell $(BIN)/python benchmarks/report.py --folder $(DEVICE))

.PHONY: demo test test-slow test-oldest lint types unit docs wheel bench $(SUBJECTS:%=bench-%) clean

demo: .venv/.demo  ## train, evaluate and draw the paper's model on clips that we make
	$(BIN)/python examples/diffusion_avs.py $(if $(wildcard runs/diffusion_avs-demo-*),--resume) $(ARGS)

test: lint types unit docs wheel  ## everything that must pass before a change lands

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell src tests docs examples benchmarks README.md CHANGELOG.md CONTRIBUTING.md

test-oldest:  ## the tests with the oldest versions that pyproject.toml allows
	$(PYTHON) -m venv --clear build/oldest
	build/oldest/bin/python -m pip install --quiet uv
	build/oldest/bin/uv pip install --quiet --python build/oldest/bin/python --resolution lowest-direct --editable ".[all,test]"
	build/oldest/bin/python -m pytest -m "not slow and not network" -o filterwarnings=ignore

types: .venv/.dev
	$(BIN)/mypy

unit: .venv/.dev
	$(BIN)/python -m pytest -m "not slow and not network"

test-slow: .venv/.dev  ## the long tests
	$(BIN)/python -m pytest -m slow

docs: .venv/.dev
	$(BIN)/python -m sphinx -b html -W --keep-going -n docs docs/_build/html

wheel: .venv/.dev  ## build the package, install it in an empty environment and import it from there
	rm -rf build dist
	$(BIN)/python -m build --wheel --outdir dist .
	$(PYTHON) -m venv build/clean
	build/clean/bin/python -m pip install --quiet dist/*.whl
	cd build && clean/bin/python -c "import avslib; [getattr(avslib, name) for name in avslib.__all__]; print('avslib', avslib.__version__, 'imports from the wheel')"

bench: .venv/.dev  ## measure time and memory, one subject after the other, and write docs/performance.md; DEVICE=cpu or cuda
	for subject in $(SUBJECTS); do $(MAKE) bench-$$subject || exit; done
	$(BIN)/python benchmarks/report.py

$(SUBJECTS:%=bench-%): bench-%: .venv/.dev
	$(BIN)/python benchmarks/$*.py $(DEVICE:%=--device %) --out $(RESULTS)/$*.json

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[all]"
	touch $@

.venv/.dev: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[all,docs,test]"
	touch $@ .venv/.demo

clean:
	rm -rf .venv build dist docs/_build docs/api/generated
