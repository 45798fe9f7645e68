# All commands of the project. `make` lists them. CI uses these commands only.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# Without bytecode files, each start compiles all of .venv again.
unexport PYTHONDONTWRITEBYTECODE
PYTHON_IN_VENV := .venv/bin/python
# The exit status of pytest if ARGS select no test.
NO_TESTS := 5
# Any Python 3 runs the scripts without dependencies.
ANY_PYTHON = "$$(command -v python3 || command -v python || echo python3)"
COMPOSE = $$(docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

.PHONY: help run test coverage contract clients clients-generate browser screenshots mutants check audit validate smoke edge releases up upgrade edge-reload down logs watch env certs seed lock fmt bench bench-quick migration restore-drill swarm-up swarm-down swarm-test clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- without Docker: requires Python 3.11 or newer

run: ## Start the API on localhost:8000 with an embedded PostgreSQL (RELOAD=1: restart on changes)
	@scripts/venv local
	@exec .venv/bin/pressroom serve $(if $(RELOAD),--reload) $(ARGS)

test: ## Run the tests (ARGS="-k login": some of them)
	@scripts/venv dev
	@cd backend && exec ../.venv/bin/python -m pytest -x $(ARGS)

coverage: ## Run the tests, and fail below 97 % coverage of lines and branches
	@scripts/venv dev
	@cd backend && exec ../.venv/bin/python -m pytest -x --cov $(ARGS)

contract: ## Test the OpenAPI documents in over 4,000 cases, and generated clients (SEED=7 EXAMPLES=30: others)
	@scripts/venv dev
	@cd backend && SCHEMATHESIS_SEED=$(SEED) SCHEMATHESIS_EXAMPLES=$(EXAMPLES) \
	  exec ../.venv/bin/python -m pytest -x -m contract --dist=load -rsP tests/contract

clients: ## Build and test both clients and the starters in clients/ (requires Node.js; ARGS="-k python": some)
	@scripts/venv dev
	@scripts/chromium
	@cd backend && exec ../.venv/bin/python -m pytest -x -m clients -n 2 --dist=loadfile -rsP tests/clients $(ARGS)

clients-generate: ## Write backend/openapi.json, and generate the clients from it (requires Node.js)
	@scripts/venv dev
	@exec $(PYTHON_IN_VENV) scripts/clients.py generate

browser: ## Test the web pages in Chromium, and install it if possible; screenshots are in .data/screenshots
	@scripts/venv dev
	@scripts/chromium
	@cd backend && exec ../.venv/bin/python -m pytest -x -m browser -n 2 --dist=loadfile -rsP tests/web/browser $(ARGS)

screenshots: ## Write the screenshots of docs/pages.md to docs/images (requires Chromium)
	@scripts/venv dev
	@scripts/chromium
	@cd backend && PYTHONPATH="$$PWD" exec ../.venv/bin/python ../scripts/screenshots.py

mutants: ## Check that the tests find known faults, one at a time (ARGS="-k slug": some of them)
	@scripts/venv dev
	@exec $(PYTHON_IN_VENV) scripts/mutants.py $(ARGS)

check: ## Run the whole validation matrix on this machine, without containers
	@scripts/venv dev
	@exec $(PYTHON_IN_VENV) scripts/matrix.py host

audit: ## Check the locked dependencies for known vulnerabilities
	@scripts/audit $(ARGS)

seed: ## Fill the database with example users and articles (USERS=100 ARTICLES=1000)
	@scripts/venv local
	@exec .venv/bin/pressroom seed --users $(or $(USERS),100) --articles $(or $(ARTICLES),1000)

bench: ## Measure the hot path and nginx, 10 minutes (ARGS=identity, …: see bench/README.md)
	@scripts/venv dev
	@exec $(PYTHON_IN_VENV) bench/run.py $(ARGS)

bench-quick: ## Compare the servers' answers and ratios in about a minute; writes nothing
	@scripts/venv dev
	@exec $(PYTHON_IN_VENV) bench/run.py --quick $(ARGS)

fmt: ## Format the code, and fix what the linter can fix
	@scripts/venv dev
	@.venv/bin/ruff check --fix backend scripts bench && .venv/bin/ruff format backend scripts bench

migration: ## Write a migration for the models' changes (M="Create series")
	@scripts/venv dev
	@cd backend && exec ../.venv/bin/python ../scripts/make_migration.py "$(M)"

lock: ## Resolve the dependencies and write backend/requirements/*.txt (ARGS="--upgrade": newest)
	@scripts/lock $(ARGS)

# --- with Docker

up: ## Build and start the containers; returns when the API answers on localhost:8080
	@$(COMPOSE) up --build --detach --wait
	@$(COMPOSE) logs --no-log-prefix backend | grep 'open in a browser' | tail -n 1

upgrade: ## Replace the running release by this checkout without a gap; roll back if it fails
	@exec $(ANY_PYTHON) -u scripts/upgrade.py $(ARGS)

edge-reload: ## Test and reload the configuration of nginx, for example after renewing a certificate
	@$(COMPOSE) exec -T nginx sh /tmp/current/scripts/apply.sh

down: ## Stop the containers, and keep the data
	@$(COMPOSE) down

logs: ## Follow the containers' logs
	@$(COMPOSE) logs --follow --tail 100

watch: ## Start the containers, and restart the backend whenever its source changes
	@$(COMPOSE) -f docker-compose.yml -f docker-compose.watch.yml watch

validate: ## Run the whole validation matrix in separate containers
	@exec $(ANY_PYTHON) scripts/matrix.py container

smoke: ## Start the stack for development and for production, test it through nginx, and remove it
	@exec $(ANY_PYTHON) -u scripts/boot.py

edge: ## Test nginx under attacks, upgrades and scaling (ARGS="-k tls": some of the tests)
	@scripts/venv dev
	@cd backend && export EDGE_TESTS=1 && \
	  { ../.venv/bin/python -m pytest -x -n 0 -m alone tests/edge $(ARGS) || [ $$? -eq $(NO_TESTS) ]; } && \
	  { ../.venv/bin/python -m pytest -x -n 3 --dist=loadfile --no-loadscope-reorder -m "not alone" \
	      tests/edge $(ARGS) || \
	    [ $$? -eq $(NO_TESTS) ]; }

releases: ## Upgrade, roll back and fail in containers under load, 12 minutes (ARGS="-m core": 3 minutes)
	@scripts/venv dev
	@cd backend && RELEASES_TESTS=1 exec ../.venv/bin/python -m pytest -x -n 3 --dist=load --maxschedchunk=1 --durations=0 --durations-min=5 tests/releases $(ARGS)

restore-drill: ## Back up a stack under load, and restore it twice: the newest backup, and a moment; 2 minutes
	@exec $(ANY_PYTHON) -u scripts/restore_drill.py

swarm-up: ## Start the stack of deploy/swarm on this host: replicas of everything, on localhost:8080 and 8081
	@exec $(ANY_PYTHON) -u scripts/swarm.py up

swarm-down: ## Remove that stack with its data and secrets
	@exec $(ANY_PYTHON) -u scripts/swarm.py down

swarm-test: ## Kill, cut off, upgrade and restore parts of that stack under load (ARGS="-m core": failover only)
	@scripts/venv dev
	@cd backend && SWARM_TESTS=1 exec ../.venv/bin/python -m pytest -x -n 0 -rs --durations=0 --durations-min=5 tests/swarm $(ARGS)

# --- maintenance

env: ## Write a .env with new secrets (never overwrites one)
	@exec $(ANY_PYTHON) scripts/make_env.py

certs: ## Write a certificate for development to certificates/ (never overwrites one)
	@scripts/venv local
	@exec $(PYTHON_IN_VENV) scripts/make_certs.py

clean: ## Remove .venv and caches, and keep the data in .data and in volumes
	@rm -rf .venv .data/check
	@find . -name .git -prune -o -type d \( -name __pycache__ -o -name .pytest_cache -o -name .mypy_cache \
	  -o -name .ruff_cache -o -name .hypothesis -o -name .schemathesis -o -name .import_linter_cache \) -prune -exec rm -rf {} +
