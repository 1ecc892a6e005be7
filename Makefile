.PHONY: fuzz install demo test test-compiled lint bench docs lock clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

install: $(STAMP)

$(STAMP): pyproject.toml .dev-requirements.lock proxy/http1/_scan.pyx
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Tulle needs Python 3.11 or newer; name one with PYTHON=python3.11 make install"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "python3 -m venv failed: install your distribution's python3-venv package"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .dev-requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $(STAMP)

demo: install
	@if ! command -v nft >/dev/null 2>&1 && [ ! -x /usr/sbin/nft ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  echo "installing nftables (for the demo's traffic capture)"; apt-get update -qq && apt-get install -y -qq nftables >/dev/null; fi
	$(BIN)/tulle demo $(DEMO_ARGS)

test: install
	$(BIN)/python -m pytest

# What TULLE_COMPILE=1 makes (docs/decisions/0011), under the tests of what is in it.
COMPILED := build/compiled-tests
COMPILED_TESTS ?= tests/unit/http2 tests/unit/proxy_bytes tests/unit/proxy_decide tests/unit/proxy_grpc \
  tests/unit/proxy_workers tests/integration/test_proxy_http1.py tests/integration/test_proxy_http1_limits.py \
  tests/integration/test_proxy_http2.py tests/integration/test_proxy_http2_floods.py
test-compiled: install
	rm -rf build/compiled $(COMPILED) && mkdir -p $(COMPILED)
	TULLE_COMPILE=1 $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w $(COMPILED) .
	cp -r tests bench docs pyproject.toml Makefile $(COMPILED)
	cd $(COMPILED) && ../../$(BIN)/python -m zipfile -e *.whl . && \
	  ../../$(BIN)/python -c 'from proxy.stream import exchange; assert exchange.__file__.endswith(".so"), exchange' && \
	  ../../$(BIN)/python -m pytest $(COMPILED_TESTS)

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	$(BIN)/python -m bench $(BENCH_ARGS)

# atheris has wheels for some Pythons only, so it is not among the locked dependencies.
FUZZ_SECONDS ?= 60
fuzz: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "atheris>=3,<4"
	for target in request response chunked http2; do \
	  $(BIN)/python -m tests.fuzz.run $$target -max_total_time=$(FUZZ_SECONDS) || exit 1; done

docs: install
	$(BIN)/python docs/check.py

lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --group dev pyproject.toml -o .dev-requirements.lock

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .hypothesis
