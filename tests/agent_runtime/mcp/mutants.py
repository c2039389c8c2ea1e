"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant

MUTANTS = [
    Mutant(
        "scopes share servers",
        "test_connection_pool.py -k never_shared",
        Change(
            "mcp.server:McpServer.from_spec",
            "[connection, scope, spec.timeout]",
            "[connection, spec.timeout]",
        ),
    ),
    Mutant(
        "a notice is not heard",
        "test_connection_pool.py -k list_that_changed",
        Change("mcp.connection:Connection._on_message", "self._change_notices += 1", "pass"),
    ),
    Mutant(
        "a dead session is kept",
        "test_connection_pool.py -k 'hangs or restarted'",
        Change("mcp.connection:Connection._mark_broken", "self._broken.set()", "pass"),
    ),
    Mutant(
        "a server may start for ever",
        "test_connection_pool.py -k never_gets_ready",
        Change("mcp.connection:Connection._run_session", "self.server.timeout_s", "None"),
    ),
    Mutant(
        "servers are never closed",
        "test_connection_pool.py -k nobody_uses",
        Change(
            "mcp.connection_pool:McpConnectionPool._check_periodically",
            "unused_s > self._idle_s",
            "False",
        ),
    ),
    Mutant(
        "an answer without result is dropped",
        "test_answers.py -k 'programs and neither'",
        Change(
            "mcp.messages:_unanswerable_requests",
            "[open_request_id for open_request_id in requests.open_requests if open_request_id == request_id]",
            "[]",
        ),
    ),
]
