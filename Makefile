.DEFAULT_GOAL := help
PY := .venv/bin/python
BENCH := PYTHONPATH=.bench-packages $(PY) -m scripts.bench
APP ?= hospital

help: ## say what there is
	@grep -E '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 24

setup: ## make .venv what the lock file says (the others do it first)
	@bash scripts/setup.sh

demo: setup ## train one model over four sites, from nothing (APP=hospital or vision)
	@$(PY) -m scripts.demo --app $(APP)

demo-stop: setup ## stop the demo's runners and stack; their data stay
	@$(PY) -m scripts.demo --stop

reproduce: setup ## Fashion-MNIST with ten clients, beside the published figure (half an hour; PARTITION=iid or dirichlet)
	@$(PY) -m scripts.reproduce --partition $(or $(PARTITION),iid)

test: setup ## the whole suite, with real servers of its own
	@bash scripts/test.sh

screenshots: setup ## pictures of the dashboard for docs/images, of a real stack (needs Chromium; 2 min)
	@$(PY) -m scripts.screenshots

chaos: setup ## 100 federations while everything is killed, stopped and cut off (SEED=n, 20 to 40 min)
	@$(PY) -m scripts.chaos --federations 100 --batch 10 $(if $(SEED),--seed $(SEED))

fuzz-api: setup ## send the gateway all that its OpenAPI and GraphQL allow, and worse (SECONDS=600)
	@$(PY) -m scripts.fuzz_api --seconds $(or $(SECONDS),600)

crash-matrix: setup ## kill each service at each step of each event (20 to 30 min)
	@$(PY) -m scripts.crash_matrix

bench: $(addprefix bench-,rounds aggregation robust strategies models backbone scale dashboards startup leases idle recovery \
	recovery-flower policies updates simulation) ## all but bench-page (about 3 hours)

bench-setup: setup
	@bash scripts/bench/setup.sh

bench-rounds: bench-setup ## what a round costs beside its training, and beside Flower's (15 min)
	@$(BENCH).rounds
	@$(BENCH).round_steps

bench-backbone: bench-setup ## the event backbone beside its peers (30 min)
	@$(BENCH).backbone --turns 5

bench-aggregation: setup ## the fold of 20 and 50 updates of 10M float32, beside Flower's
	@$(BENCH).aggregation

bench-robust: setup ## robust strategies on 50 updates of 10M float32, beside Flower's and ByzFL's (5 min, 9 GiB)
	@$(BENCH).robust --repeats 1

bench-strategies: setup ## every strategy by name in a real federation of four hospitals (5 min)
	@$(BENCH).strategies

bench-models: setup ## a round with a model of 1 GiB and four clients: time, memory, bytes
	@$(BENCH).models

bench-scale: bench-setup ## 10 to 3,000 simulated clients, and a round of a thousand (12 min)
	@$(BENCH).scale --runners 10,100,1000,3000 --seconds 60
	@$(BENCH).scale --runners 1000 --round --update-kib 100

bench-dashboards: setup ## what 200 open dashboards cost a round
	@$(BENCH).dashboards --open 200 --rounds 12 --turns 2 --epochs 400
	@$(BENCH).dashboards --open 200 --rounds 40 --turns 2

bench-page: setup ## how long after its commit a change stands on the page (needs Chromium; 1 min)
	@$(BENCH).page

bench-startup: setup ## how long a start takes, and the idle stack's memory
	@$(BENCH).startup

bench-leases: setup ## how soon a site's workers have done their first training, and what they hold (2 min)
	@$(BENCH).leases

bench-idle: bench-setup ## processor time of an idle stack with 4 and with 1,000 runners, 10 minutes each
	@$(BENCH).idle --seconds 600
	@$(BENCH).idle --seconds 600 --runners 1000

bench-recovery: setup ## what a kill of each process costs a round, 20 times each (35 min)
	@$(BENCH).recovery --kills 20

bench-recovery-flower: setup ## what the same kills cost stock Flower
	@$(BENCH).recovery_flower --kills 5

bench-simulation: setup ## samples a second of 100 and 500 virtual clients, beside Flower's simulation (8 min)
	@$(BENCH).simulation --clients 100 --rounds 2 --epochs 5
	@$(BENCH).simulation --clients 500 --rounds 2 --epochs 5 --fraction 0.2

bench-policies: setup ## accuracy and time of each round policy, with and without a slow site
	@$(BENCH).policies --updates 40 --share 0.1

bench-updates: setup ## accuracy against bytes: each form of update on trained steps, three seeds (10 min)
	@$(BENCH).updates --rounds 15 --seeds 1,2,3

check: setup ## formatting, lint and types
	.venv/bin/ruff format --check -q .
	.venv/bin/ruff check -q .
	.venv/bin/mypy

verify: setup ## generated files are not stale
	$(PY) scripts/generate_contracts.py --check
	$(PY) -m scripts.observability --check
	$(PY) scripts/generate_cli_reference.py --check

generate: setup ## write what is generated: schemas, AsyncAPI, GraphQL, app hashes, alerts, dashboards, docs/cli.md
	$(PY) scripts/generate_contracts.py
	$(PY) -m scripts.observability
	$(PY) scripts/generate_cli_reference.py

format: setup ## format and mend what can be mended
	.venv/bin/ruff format -q .
	.venv/bin/ruff check -q --fix .

lock: setup ## make requirements.lock anew
	@bash scripts/lock.sh

.PHONY: help setup demo demo-stop reproduce test screenshots chaos fuzz-api crash-matrix bench bench-setup \
	bench-rounds bench-backbone bench-scale bench-dashboards bench-aggregation bench-robust bench-strategies bench-models bench-startup bench-leases bench-idle bench-recovery \
	bench-recovery-flower bench-policies bench-updates bench-simulation check verify generate format lock
