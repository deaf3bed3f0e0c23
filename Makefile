# Everything sets itself up: it needs Rust (rustup), Python 3.11, Node 20 and the package registries.
# What is downloaded and built for later runs lies in ${XDG_CACHE_HOME:-~/.cache}/cortex.

.DEFAULT_GOAL := help
.PHONY: help test test-faults screenshots python-test deploy-test lint rust-lint python-lint demo dev bench soak bench-asking bench-airflow verify-static fuzz deny sbom fmt clean

cache := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/cortex
cargo := CARGO_BUILD_BUILD_DIR="$$(python3 .ci/build_dir.py)" cargo
# Runs a command with the real counterparts of the end-to-end tests installed and in its environment.
counterparts := python3 tests/counterparts/setup.py --
python := tests/counterparts .ci
# What checks deploy/, with an environment of its own.
deploy := tests/deploy
python_config := tests/counterparts/pyproject.toml
# The package for Airflow has settings of its own, and the types of Airflow.
package := airflow-provider
fuzz_seconds ?= 60
soak_minutes ?= 30
# What `make bench` is told, such as `--only midnight`, `--ten-million` or `--into docs/benchmarks.md`.
bench_options ?=
sbom_target ?= x86_64-unknown-linux-gnu
fuzz_tools := $(cache)/fuzz-tools/bin

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: lint ## lint, then run all tests
	@.ci/postgres
	@.ci/chromium
	@echo '== tests'
	@$(counterparts) env $(cargo) test --workspace --no-fail-fast
	@$(MAKE) --no-print-directory python-test
	@$(MAKE) --no-print-directory deploy-test

test-faults: ## kill, stop, cut off and misdate replicas under load for minutes (CORTEX_TEST_SEED=… repeats one)
	@.ci/postgres
	@$(counterparts) env $(cargo) test --workspace --test e2e -- \
		--include-ignored --nocapture --test-threads=1 log::nemesis crashes:: faults::

screenshots: ## take the pictures of docs/console.md anew, with the browser tests
	@.ci/postgres
	@.ci/chromium
	@$(counterparts) env CORTEX_SCREENSHOTS="$(CURDIR)/docs/images" $(cargo) test --workspace --test e2e -- console::browser

python-test: ## test the package for Airflow on each version of Airflow that installs here
	@$(counterparts) sh -ec '\
		for venv in "$$CORTEX_AIRFLOW3_VENV" "$$CORTEX_AIRFLOW32_VENV" "$$CORTEX_AIRFLOW2_VENV"; do \
			test -n "$$venv" || continue; \
			echo "== pytest on Airflow $$("$$venv/bin/python" -c "from importlib.metadata import version; \
				print(version(\"apache-airflow\"))")"; \
			(cd $(package) && "$$venv/bin/python" -m pytest --quiet -p no:cacheprovider); \
		done'

deploy-test: ## check what is in deploy/: alerts, dashboard, chart, compose file, units
	@echo '== deploy'
	@.ci/promtool >/dev/null
	@$(counterparts) sh -ec '"$$CORTEX_TEST_VENV_DEPLOY/bin/python" -m pytest --quiet -p no:cacheprovider $(deploy)'

lint: rust-lint python-lint ## check the format, the lints, the types and the documentation

rust-lint:
	@echo '== cargo fmt'
	@$(cargo) fmt --all --check
	@echo '== cargo clippy'
	@$(cargo) clippy --workspace --all-targets -- -D warnings
	@echo '== cargo doc'
	@RUSTDOCFLAGS='-D warnings' $(cargo) doc --workspace --no-deps --document-private-items

python-lint:
	@echo '== ruff, mypy'
	@$(counterparts) sh -ec '\
		"$$CORTEX_TEST_VENV/bin/ruff" check --config $(python_config) $(python) $(deploy); \
		"$$CORTEX_TEST_VENV/bin/ruff" format --config $(python_config) --check $(python) $(deploy); \
		MYPYPATH=$(deploy) "$$CORTEX_TEST_VENV/bin/mypy" --config-file $(python_config) --ignore-missing-imports \
			--python-executable "$$CORTEX_TEST_VENV_DEPLOY/bin/python" $(deploy); \
		for part in $(python); do \
			"$$CORTEX_TEST_VENV/bin/mypy" --config-file $(python_config) \
				--python-executable "$$CORTEX_TEST_VENV/bin/python" "$$part"; \
		done; \
		MYPYPATH=$(package)/src:tests/counterparts/airflow "$$CORTEX_TEST_VENV/bin/mypy" --config-file $(package)/pyproject.toml \
			--python-executable "$$CORTEX_AIRFLOW3_VENV/bin/python" $(wildcard tests/counterparts/airflow/*.py) \
			$(wildcard tests/counterparts/airflow/dags/*.py); \
		"$$CORTEX_TEST_VENV/bin/ruff" check $(package); \
		"$$CORTEX_TEST_VENV/bin/ruff" format --check $(package); \
		cd $(package) && "$$CORTEX_TEST_VENV/bin/mypy" --python-executable "$$CORTEX_AIRFLOW3_VENV/bin/python"'

demo: ## tell the whole story on this machine, and exit
	@.ci/postgres
	@$(cargo) run --quiet --package cortex-cli --bin cortex -- demo

dev: ## serve Cortex with sandbox clouds and a development issuer, until Ctrl-C
	@.ci/postgres
	@$(cargo) run --quiet --package cortex-cli --bin cortex -- dev

bench: ## measure a release build on a quiet machine; a quarter of an hour (bench_options="--only midnight")
	@.ci/postgres
	@$(cargo) run --release --package cortex-tests --bin bench -- $(bench_options)

soak: ## half the peak rate for half an hour (soak_minutes=30): what grows?
	@.ci/postgres
	@$(cargo) run --release --package cortex-tests --bin bench -- --only soak --soak-minutes $(soak_minutes)

bench-asking: ## measure how fast a record of ten million rows answers auditors; takes 15 GB and half an hour
	@.ci/postgres
	@$(cargo) run --quiet --package cortex-tests --bin asking

bench-airflow: ## measure what Cortex is asked when the tasks of 300 DAGs start at once
	@.ci/postgres
	@$(cargo) build --quiet --package cortex-cli --bin cortex
	@$(counterparts) sh -ec 'PYTHONPATH=$(package)/src "$$CORTEX_AIRFLOW3_VENV/bin/python" \
		tests/counterparts/airflow/load.py env $(cargo) run --quiet --package cortex-cli --bin cortex -- dev'

verify-static: ## build cortex-verify as one static binary for x86-64 Linux
	@RUSTFLAGS='-C target-feature=+crt-static' $(cargo) build --release --target x86_64-unknown-linux-gnu \
		--package cortex-verify --bin cortex-verify
	@ls -l target/x86_64-unknown-linux-gnu/release/cortex-verify

fuzz: ## fuzz each target for a while (fuzz_seconds=60)
	@test -x $(fuzz_tools)/cargo-fuzz || { echo '== installing cargo-fuzz'; \
		cargo install cargo-fuzz --locked --root $(dir $(fuzz_tools)); }
	@rustup run nightly rustc --version >/dev/null 2>&1 || rustup toolchain install nightly --profile minimal
	@export PATH="$(fuzz_tools):$$PATH"; targets=$$(cargo +nightly fuzz list) || exit; \
	for target in $$targets; do \
		echo "== fuzzing $$target for $(fuzz_seconds) s"; \
		cargo +nightly fuzz run "$$target" -- -max_total_time=$(fuzz_seconds) -print_final_stats=1 || exit; \
	done

deny: ## check the licences and origins of dependencies, where cargo-deny is installed
	@cargo deny --version >/dev/null 2>&1 || { echo 'cargo-deny is not installed: cargo install cargo-deny --locked' >&2; exit 1; }
	@cargo fetch --locked --quiet
	@cargo deny --offline check bans licenses sources

sbom: ## write the bill of materials of the binary `cortex` (CycloneDX): sbom_target=x86_64-unknown-linux-gnu
	@mkdir -p target
	@python3 .ci/sbom.py --target $(sbom_target) > target/cortex.cdx.json
	@ls -l target/cortex.cdx.json

fmt: ## format the Rust and the Python code
	@$(cargo) fmt --all
	@$(counterparts) sh -ec '\
		"$$CORTEX_TEST_VENV/bin/ruff" check --fix --config $(python_config) $(python) $(deploy); \
		"$$CORTEX_TEST_VENV/bin/ruff" format --config $(python_config) $(python) $(deploy); \
		"$$CORTEX_TEST_VENV/bin/ruff" check --fix $(package); \
		"$$CORTEX_TEST_VENV/bin/ruff" format $(package)'

clean: ## remove what was built in this checkout
	@$(cargo) clean
	@rm -rf tests/counterparts/node/node_modules
