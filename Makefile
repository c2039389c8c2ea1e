.PHONY: check test integration versions mirror upstream bench bench-against docs site fix soak

check:  ## format, lint, types, published schema
	uv run ruff format --check .
	uv run ruff check .
	uv run mypy
	uv run mypy tests examples benchmarks tools
	uv run agent-runtime schema | diff - templates/agent-template.v1.schema.json
	uv run agent-runtime validate --strict templates/*.yaml

test:  ## the suite with coverage
	uv run pytest --cov --cov-report=term

integration: versions site  ## many processes, Kafka, every provider package, other versions
	UV_PROJECT_ENVIRONMENT=.venv-integration uv run --group integration pytest -m integration

versions:  ## the tests that meet LangChain, on its lowest and newest versions that resolve
	uv run python -m tools.run_on_versions lowest newest

mirror:  ## which modules their own test file covers
	COVERAGE_FILE=.coverage.mirror uv run pytest --cov --cov-context=test --cov-report=
	uv run python -m tools.mirror .coverage.mirror

upstream:  ## LangGraph's own saver and store tests, from a checkout: LANGGRAPH_SRC=DIR
	UV_PROJECT_ENVIRONMENT=.venv-upstream uv run --group upstream python -m tests.upstream $(LANGGRAPH_SRC)

bench:  ## every figure with its bar; exits non-zero on a miss
	uv run python -m benchmarks.run

bench-against:  ## this tree beside a commit, in turns: REF=commit
	uv run python -m benchmarks.against $(REF)

docs:  ## the generated reference pages
	uv run agent-runtime schema > templates/agent-template.v1.schema.json

site:  ## the documentation as a site, in build/site; fails for a broken link
	UV_PROJECT_ENVIRONMENT=.venv-docs uv run --only-group docs mkdocs build --strict --quiet

fix:  ## what can be mended by itself
	uv run ruff check --fix .
	uv run ruff format .

soak:  ## the long form of the proofs
	UV_PROJECT_ENVIRONMENT=.venv-integration uv run --group integration python -m benchmarks.soak
