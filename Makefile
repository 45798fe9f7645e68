# Every command of the project; `make` alone lists them. CI calls these, and no others.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# Some machines turn bytecode off; every start would then compile all of .venv again.
unexport PYTHONDONTWRITEBYTECODE
PYTHON_IN_VENV := .venv/bin/python
# Any Python will do for the scripts that need no packages; they say so where there is none.
ANY_PYTHON = "$$(command -v python3 || command -v python || echo python3)"
COMPOSE = $$(docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

.PHONY: help run test contract check validate smoke edge up down logs watch env certs seed lock fmt bench bench-quick migration clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- without Docker: Python 3.11 or newer is all that is needed

run: ## Start the API on localhost:8000 with an embedded PostgreSQL (RELOAD=1: restart on changes)
	@scripts/venv local
	@exec .venv/bin/pressroom serve $(if $(RELOAD),--reload) $(ARGS)

test: ## Run the tests, and fail below 95 % coverage (ARGS="-k login": some of them)
	@scripts/venv dev
	@cd backend && exec ../.venv/bin/python -m pytest -x $(or $(ARGS),--cov)

contract: ## Hold the API to its OpenAPI description in over 2,000 cases (SEED=7: other cases)
	@scripts/venv dev
	@cd backend && SCHEMATHESIS_EXAMPLES=30 SCHEMATHESIS_PHASES=examples,coverage,fuzzing,stateful \
	  SCHEMATHESIS_CASES=2000 SCHEMATHESIS_SEED=$(or $(SEED),1) exec ../.venv/bin/python -m pytest -x -n 0 tests/contract -rP

check: ## Run the whole validation matrix on this machine, without containers
	@scripts/venv dev
	@exec $(PYTHON_IN_VENV) scripts/matrix.py host

seed: ## Fill the database with example users and articles (USERS=100 ARTICLES=1000)
	@scripts/venv local
	@exec .venv/bin/pressroom seed --users $(or $(USERS),100) --articles $(or $(ARTICLES),1000)

bench: ## Measure the hot path and the edge, 10 minutes (ARGS=identity, ARGS=content: the rest)
	@scripts/venv dev
	@exec $(PYTHON_IN_VENV) bench/run.py $(ARGS)

bench-quick: ## The same in about a minute, without writing bench/RESULTS.md
	@scripts/venv dev
	@exec $(PYTHON_IN_VENV) bench/run.py --quick $(ARGS)

fmt: ## Format the code, and fix what the linter can fix
	@scripts/venv dev
	@.venv/bin/ruff check --fix backend scripts bench && .venv/bin/ruff format backend scripts bench

migration: ## Write a migration for the models' changes (M="Create series")
	@scripts/venv dev
	@cd backend && exec ../.venv/bin/python ../scripts/make_migration.py "$(M)"

lock: ## Resolve the dependencies anew and write backend/requirements/*.txt (ARGS="--upgrade": newest)
	@scripts/lock $(ARGS)

# --- with Docker

up: ## Build and start the containers; returns when the API answers on localhost:8080
	@$(COMPOSE) up --build --detach --wait

down: ## Stop the containers; the data stays
	@$(COMPOSE) down

logs: ## Follow the containers' logs
	@$(COMPOSE) logs --follow --tail 100

watch: ## Start the containers, and restart the backend whenever its source changes
	@$(COMPOSE) -f docker-compose.yml -f docker-compose.watch.yml watch

validate: ## Run the whole validation matrix inside containers of its own
	@exec $(ANY_PYTHON) scripts/matrix.py container

smoke: ## Boot the real stack as for development and as for production, use it through nginx, and remove it
	@exec $(ANY_PYTHON) -u scripts/boot.py

edge: ## Attack the edge, upgrade and scale behind it, under load (ARGS="-k tls": some of it)
	@scripts/venv dev
	@cd backend && EDGE_TESTS=1 exec ../.venv/bin/python -m pytest -x -n 0 tests/edge $(ARGS)

# --- house-keeping

env: ## Write a .env with fresh secrets (never overwrites one)
	@exec $(ANY_PYTHON) scripts/make_env.py

certs: ## Write a certificate for development to certificates/ (never overwrites one)
	@scripts/venv local
	@exec $(PYTHON_IN_VENV) scripts/make_certs.py

clean: ## Remove .venv and caches; the data in .data and in volumes stays
	@rm -rf .venv .data/check
	@find . -name .git -prune -o -type d \( -name __pycache__ -o -name .pytest_cache -o -name .mypy_cache \
	  -o -name .ruff_cache -o -name .hypothesis -o -name .schemathesis -o -name .import_linter_cache \) -prune -exec rm -rf {} +
