.PHONY: check test integration upstream bench bench-against docs fix soak

check:  ## format, lint, types, published schema
	uv run ruff format --check .
	uv run ruff check .
	uv run mypy
	uv run mypy tests examples benchmarks tools
	uv run agent-runtime schema | diff - templates/agent-template.v1.schema.json
	uv run agent-runtime validate --strict templates/*.yaml

test:  ## the suite with coverage
	uv run pytest --cov --cov-report=term

integration:  ## the tests with many processes, and every provider package in an environment of its own
	UV_PROJECT_ENVIRONMENT=.venv-integration uv run --group integration pytest -m integration

upstream:  ## LangGraph's own saver and store tests, from a checkout: LANGGRAPH_SRC=DIR
	UV_PROJECT_ENVIRONMENT=.venv-upstream uv run --group upstream python -m tests.upstream $(LANGGRAPH_SRC)

bench:  ## every figure with its bar; exits non-zero on a miss
	uv run python -m benchmarks.run

bench-against:  ## this tree beside a commit, in turns: REF=commit
	uv run python -m benchmarks.against $(REF)

docs:  ## the generated reference pages
	uv run agent-runtime schema > templates/agent-template.v1.schema.json

fix:  ## what can be mended by itself
	uv run ruff check --fix .
	uv run ruff format .

soak:  ## the long form of the proofs
	uv run python -m benchmarks.soak
