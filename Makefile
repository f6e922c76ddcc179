# Needs a POSIX shell, make and Python 3.11 or newer; everything else is installed into .venv and var.
.POSIX:
.PHONY: help run test quick lint check docs screenshots demo bench lock audit clean install install-tests

VENV = .venv
PY = $(VENV)/bin/python
TOOLS = $(VENV)-tools
UV = 0.13.9
PIP_AUDIT = 2.10.1
COMPILE = $(TOOLS)/bin/uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
  --no-annotate --no-emit-index-url --custom-compile-command "make lock"

help:
	@echo "make run    start the studio and print its address (installs missing packages first; LOCKED=yes: by their hashes)"
	@echo "make test   install what tests need and run every test (browser tests need chromium, the database's also use postgresql where installed)"
	@echo "make quick  run the tests of what changed since the last commit, about a minute (PYTEST='-k word' narrows them)"
	@echo "make lint   check style, format and types"
	@echo "make check  lint and test"
	@echo "make docs   build the documentation into var/site; a link that leads nowhere fails"
	@echo "make screenshots  take the pictures of the README and the documentation again (needs chromium)"
	@echo "make demo   fit the demo's first snapshot again, which the product ships (some minutes)"
	@echo "make bench  measure speed and quality into benchmarks/RESULTS.md (BENCH='names --data folder' for some)"
	@echo "make lock   write the lists of hashes again, after a change of the lists of packages (needs a network)"
	@echo "make audit  known holes of the packages in those lists (needs a network)"
	@echo "make clean  remove the environment and caches; labels, models and weights stay in var"

run: install
	@$(PY) -m copl_core weights --check-port
	@exec $(PY) -m copl_core up

# Three processes for two cores, since browser tests mostly wait.  Without the weights, the tests that need them are skipped with the reason.
test: install-tests
	@$(PY) -m copl_core weights || echo "Testing without the weights."
	@$(PY) -m pytest -n 3 $(PYTEST)

# The rooms that changed, without browsers and slow tests; tests/quick.py chooses them.
quick: install-tests
	@$(PY) -m tests.quick $(PYTEST)

lint: install-tests
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check --quiet . || { echo "Run '$(PY) -m ruff format .' and commit the result." >&2; exit 1; }
	@$(PY) -m mypy

check: lint test

docs: install-tests
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict
	@echo "The documentation is in var/site; read it with: $(PY) -m http.server --directory var/site 8800"

screenshots: install-tests
	@$(PY) -m copl_core weights
	@$(PY) -m tests.e2e.screenshots

demo: install-tests
	@$(PY) -m copl_core weights
	@$(PY) -m tests.demo.pack

# All, one after another; BENCH=labels_saved runs one.
bench: install-tests
	@$(PY) -m copl_core weights
	@$(PY) -m benchmarks $(BENCH)

# Both tools live apart from the studio.  The lists hold for every platform, and name no address: each takes the packages
# from its own index (UV_DEFAULT_INDEX names it for lock), and their hashes are the same everywhere.
lock: $(TOOLS)/made
	@$(COMPILE) requirements-tests.txt --output-file requirements-tests.lock
	@$(COMPILE) --constraint requirements-tests.lock requirements.txt --output-file requirements.lock
	@echo "Wrote requirements.lock and requirements-tests.lock."

audit: $(TOOLS)/made
	@$(TOOLS)/bin/pip-audit --strict --disable-pip --require-hashes -r requirements-tests.lock

$(TOOLS)/made: Makefile
	@python3 -m venv --clear $(TOOLS)
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV) pip-audit==$(PIP_AUDIT)
	@touch $@

clean:
	rm -rf $(VENV) $(TOOLS) .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -not -path './var/*' -prune -exec rm -rf {} +

# install brings what the studio needs, install-tests also what the tests need.  Each installs when its lists differ from
# those of the last completed install; an interrupted install does not count.  PYTHON=… chooses the interpreter.  Python
# compiles a module when it is first imported, where it may; all of them at once would take as long as the rest.
install install-tests:
	@studio=$$(cksum < requirements.txt); tests=$$(cat requirements.txt requirements-tests.txt | cksum); \
	hashes=; end=txt; compile=--no-compile; \
	[ -z "$$PYTHONDONTWRITEBYTECODE" ] || compile=; \
	if [ "$(LOCKED)" = yes ]; then hashes=--require-hashes; end=lock; studio="$$studio locked"; tests="$$tests locked"; fi; \
	if [ $@ = install ]; then list=requirements.$$end; mark=$(VENV)/installed; want=$$studio; \
	else list=requirements-tests.$$end; mark=$(VENV)/installed-tests; want=$$tests; fi; \
	if [ "$$(cat $$mark 2>/dev/null)" = "$$want" ] && $(PY) -c "" 2>/dev/null; then exit 0; fi; \
	rm -f $(VENV)/installed $(VENV)/installed-tests; \
	if ! $(PY) -m pip --version >/dev/null 2>&1; then \
	  found=; old=; bare=; \
	  for python in $(PYTHON) python3.11 python3.12 python3.13 python3 python; do \
	    "$$python" -c "" 2>/dev/null || continue; \
	    "$$python" -c "import sys; sys.exit(sys.version_info < (3, 11))" || { old=$$python; continue; }; \
	    "$$python" -c "import venv, ensurepip" 2>/dev/null || { bare=$$python; continue; }; \
	    found=$$python; break; \
	  done; \
	  if [ -z "$$found" ] && [ -n "$$bare" ]; then \
	    echo "$$bare lacks its venv module; install it (on Debian or Ubuntu: apt install python3-venv), then run make again." >&2; \
	    exit 1; \
	  elif [ -z "$$found" ]; then \
	    have="none was found"; [ -z "$$old" ] || have="only $$($$old --version 2>&1) was found"; \
	    echo "Python 3.11 or newer is needed and $$have; install it, or name it: make run PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	  fi; \
	  if ! message=$$("$$found" -m venv --clear $(VENV) 2>&1); then \
	    echo "Cannot make the environment $(VENV) in $$(pwd) ($$(echo "$$message" | tail -n 1)); make the folder writable or free some space, then run make again." >&2; \
	    exit 1; \
	  fi; \
	fi; \
	echo "Installing packages (about 3 minutes the first time)…"; \
	{ $(PY) -m pip install --disable-pip-version-check --no-input --progress-bar off $$compile $$hashes -r $$list \
	    2>$(VENV)/pip.log || echo "failed" >$(VENV)/failed; } \
	  | sed -n -e 's/^Collecting \([^ ]*\) (from -r .*/  \1/p' -e 's/^Installing collected packages.*/  unpacking/p'; \
	if [ -f $(VENV)/failed ]; then \
	  rm -f $(VENV)/failed; \
	  reason=$$(sed -n 's/^ERROR: *//p' $(VENV)/pip.log | head -n 1); \
	  echo "The packages could not be installed ($${reason:-see $(VENV)/pip.log}). Connect to the network, set PIP_INDEX_URL to a mirror or free some space, then run make again." >&2; \
	  exit 1; \
	fi; \
	echo "$$studio" >$(VENV)/installed; \
	[ $@ = install ] || echo "$$tests" >$(VENV)/installed-tests
