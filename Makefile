# `make help` lists the targets. `make run` and `make test` set everything up by themselves.
SHELL := /bin/sh
.DEFAULT_GOAL := help
VENV ?= .venv
# Searched only by targets that need it; a bare Debian gets its python3 here.
PYTHON ?= $(shell tools/debian-part "tools/find-python newest" "python3 python3-venv" >&2 && tools/find-python newest)
BIN := $(VENV)/bin
CACHE := $(HOME)/.cache/tidegate
POLICIES ?= examples/policies
# Passed on to pytest: make test PYTEST="-k calendar -x"
PYTEST ?=
SECONDS ?= 60

.PHONY: help setup run demo test coverage translators lint format check verify bench soak e2e e2e-cluster e2e-kind fuzz generate audit sbom lock docs clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

setup: ## make .venv with the newest Python there is and install everything, hashed
	@tools/setup "$(VENV)" "$(PYTHON)"

run: setup ## serve the example policies from memory on 127.0.0.1:8081 (gRPC) and :8080 (admin)
	@$(BIN)/tidegate serve --policies $(POLICIES) --grpc 127.0.0.1:8081 --admin 127.0.0.1:8080 --log-format console

demo: setup ## a real Envoy in front of a small upstream, limited live; ends by itself
	@$(BIN)/python -m examples.demo

test: setup ## every test but e2e, in random order, with the coverage gates
	@PYTEST="$(PYTEST)" tools/test "$(VENV)"

e2e: setup ## a real Envoy, API server and Prometheus; then the chart on a real cluster of one node
	@$(BIN)/python -m e2e.cluster.build
	@$(BIN)/python -m pytest $(if $(CI),--randomly-seed=1) e2e --ignore e2e/cluster $(PYTEST)
	@$(MAKE) --no-print-directory e2e-cluster

# The scenarios follow one another; TIDEGATE_E2E_KUBECONFIG names another cluster than the local node.
e2e-cluster: setup ## the chart on a real cluster of one node (root), or on one that you name
	@tools/debian-part "command -v containerd && command -v runc && command -v conntrack && command -v socat && command -v mmdebstrap" "containerd runc containernetworking-plugins iptables conntrack socat mmdebstrap iproute2 openssl"
	@$(BIN)/python -m e2e.cluster.build
	@$(BIN)/python -m pytest -p no:randomly e2e/cluster $(CLUSTER)

e2e-kind: setup ## the same on kind, where Docker runs and its node image is there
	@e2e/cluster/kind "$(BIN)/python" $(CLUSTER)

translators: setup ## build Istio's and Envoy Gateway's own translators, for the tests of `make e2e` that need them (minutes)
	@tools/debian-part "command -v go" golang-go
	@$(BIN)/python -m e2e.translators.build

lint: setup ## guards, ruff, mypy, import contracts, sizes, generated files
	@tools/lint "$(VENV)"

format: setup ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

check: lint test ## what a commit must pass

bench: setup ## load generator and micro benchmarks; tables here, JSON in build/bench
	@tools/debian-part "command -v go" golang-go
	@$(BIN)/python -m tests.benchmarks.run

bench-operator: setup ## the operator at 1,000 and 5,000 policies on a real API server; JSON in build/bench
	@$(BIN)/python -m e2e.cluster.build
	@$(BIN)/python -m tests.benchmarks.bench_operator $(BENCH)

soak: setup ## the long form of the randomised tests, simulations and kills: hours
	@HYPOTHESIS_PROFILE=soak TIDEGATE_SEEDS=100000 TIDEGATE_KILLS=3000 TIDEGATE_CHURN=10000000 TIDEGATE_CHAOS=all $(BIN)/python -m pytest tests/properties tests/contract tests/integration/cache tests/chaos $(PYTEST)
	@$(BIN)/python -m tests.benchmarks.compare_caches --only tidegate --check
	@$(BIN)/python -m e2e.cluster.build
	@TIDEGATE_LONG=all $(BIN)/python -m pytest e2e/api/test_outage.py $(PYTEST)

fuzz: setup ## coverage-guided fuzzing of the wire and of stored payloads, a minute in all; SECONDS=600 for more
	@$(BIN)/python -m tests.fuzz.run --seconds $(SECONDS)

generate: setup ## write what is made from the code: reference pages, descriptors
	@$(BIN)/python tools/generate.py

verify: setup ## fail when a generated file is not what the code says (verify-reference, verify-descriptors: one kind)
	@$(BIN)/python tools/generate.py --check

verify-%: setup
	@$(BIN)/python tools/generate.py --check $*

audit: setup ## ask PyPI for known vulnerabilities of everything that is locked
	@tools/audit "$(PYTHON)"

sbom: setup ## CycloneDX bills of what the images hold, in build/sbom
	@mkdir -p build/sbom
	@for lock in service operator; do $(BIN)/cyclonedx-py requirements --output-reproducible --output-file build/sbom/$$lock.cdx.json requirements/$$lock.txt; done

lock: setup ## resolve requirements/*.txt anew
	@VENV="$(VENV)" tools/lock

docs: setup generate ## run every code block of the docs, and build the site in build/site
	@$(BIN)/python -m pytest tests/docs $(PYTEST)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean: ## remove what the targets above made
	@rm -rf build dist $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
