# Every target sets up what it needs: on a fresh machine `make demo`, `make test` and `make check` just work.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test long check docs format reference pictures clean

demo: $(READY)
	$(BIN)/python examples/digits.py

test: $(READY)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

long: $(READY)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --long

check: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(MAKE) test

# The variable silences mkdocs-material's advertisement of its successor: decision 21.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

format: $(READY)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

reference: $(READY)
	$(BIN)/python -m tests.reference

pictures: $(READY)
	$(BIN)/python -m tests.pictures

clean:
	rm -rf .venv build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch comes first and at its exact pin: an index that offers a CPU build of that version serves it,
# where a looser request would fetch gigabytes of CUDA libraries.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev,docs,images,demo,figures]'
	touch $@
