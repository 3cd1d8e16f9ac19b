.DEFAULT_GOAL := help
PY := .venv/bin/python
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header

# Not among them: the cluster's own (it goes down in it), tuning (another interpreter), sidecar_split
# (a trial), and the two long simulations.
BENCHES := operator_footprint first_inference idle_writes rolling_restart sidecar_cost rollback_time \
	overload cold_start dashboard command_line live_canaries load_reading scaling_tick quality_power

.PHONY: help venv check fuzz contract integration integration-clouds integration-frameworks test e2e e2e-full cluster cluster-down cluster-status images demo \
	bench bench-long docs kwok generate lock

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: .venv/.locked ## the Python environment, from the lock

.venv/.locked: requirements/dev.txt e2e/bootstrap.py
	@python3 e2e/bootstrap.py

check: venv ## lint, format, types, import contracts, unit tests: under 2 minutes
	@$(PY) -m e2e.suite check

fuzz: venv ## the unit tests' properties with fresh random examples, 2,000 each: about ten minutes
	@TIDEGATE_HYPOTHESIS=search PYTHONPATH=operator:. $(PY) -m pytest -q tests/unit

contract: venv ## contract tests against a real API server
	@$(PY) -m e2e.suite contract

integration: venv ## tests against real servers (Triton, Envoy, S3, ...) as plain processes
	@$(PY) -m e2e.suite integration integration-alone

integration-clouds: venv ## the ones whose servers take minutes to get: mlflow, emulators, Flux, pipelines
	@$(PY) -m e2e.suite integration-clouds

integration-frameworks: venv ## preparing models of PyTorch and TensorFlow, which are 6 GB to get
	@$(PY) -m e2e.suite integration-frameworks

test: venv ## all of these: checks, contract and integration tests, a cluster and its tests
	@$(PY) -m e2e.suite cluster/check e2e/contract,integration cluster-down integration-alone

e2e: venv ## the end-to-end tests on the running cluster (brought up if there is none)
	@$(PY) -m e2e.suite cluster e2e

e2e-full: venv ## the same with the slow ones
	@$(PY) -m e2e.suite cluster e2e-full

cluster: venv ## bring up the embedded cluster; CLUSTER=current: only images, for your own cluster
	@$(PY) -m e2e.cluster up

cluster-down: venv ## stop the embedded cluster and remove all it made but its caches
	@$(PY) -m e2e.cluster down

cluster-status: venv ## say what runs
	@$(PY) -m e2e.cluster status

images: venv ## build what changed and put it into the node
	@$(PY) -m e2e.cluster images

demo: venv ## a cluster, the chart, a model, and two minutes of rollouts; DEMO=--quick: less
	@PYTHONPATH=operator $(PY) -m e2e.demo $(DEMO)

bench: venv ## the measurements of docs/benchmarks.md on the running cluster, but the long simulations
	@$(PY) -m e2e.suite cluster
	@began=$$(date +%s); for name in $(BENCHES); do \
		one=$$(date +%s); \
		PYTHONPATH=operator:. $(PY) -m e2e.bench.$$name --patience 60 || exit 1; \
		echo "$$name took $$(($$(date +%s) - one)) s"; \
	done; echo "all of them took $$((($$(date +%s) - began) / 60)) min"

bench-long: venv ## how canaries are judged and replicas decided, simulated: about an hour of 2 cores
	@began=$$(date +%s); for name in "verdicts --full" autoscaling; do \
		PYTHONPATH=operator:. $(PY) -m e2e.bench.$$name || exit 1; \
	done; echo "both took $$((($$(date +%s) - began) / 60)) min"

docs: venv ## the documentation as a site, in site/; a dead link or anchor ends it
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

kwok: venv ## build kwok, for thousands of pretend nodes
	@$(PY) -m e2e.cluster kwok

generate: venv ## write the CRD, its copies, the references, the chart's README, install.yaml
	@for part in api.generate cli.reference runtime.reference; do \
		PYTHONPATH=operator $(PY) -m tidegate.$$part || exit 1; \
	done
	@$(PY) -m helm.generate

lock: ## write the lock files anew from pyproject.toml and the images' *.in
	$(LOCK) pyproject.toml --extra operator --extra tracing -o requirements/operator.txt
	$(LOCK) pyproject.toml --extra fetch -o requirements/fetch.txt
	$(LOCK) pyproject.toml --extra operator --extra tracing --extra cli --extra fetch --group dev \
		--group e2e -o requirements/dev.txt
	$(LOCK) pyproject.toml --extra cli --extra preparation -o requirements/preparation.txt
	$(LOCK) pyproject.toml --extra cli --extra preparation --group preparation-tests \
		-o requirements/preparation-tests.txt
	$(LOCK) pyproject.toml --extra cli --extra preparation --extra preparation-frameworks \
		--group preparation-tests -o requirements/preparation-frameworks.txt
	$(LOCK) requirements/build.in -o requirements/build.txt
	@for in in e2e/images/*/*.in; do \
		$(LOCK) $$(head -1 $$in | sed -n 's/^# options: //p') $$in -o $${in%.in}.txt || exit 1; \
	done
