"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant

MUTANTS = [
    Mutant(
        "scopes share servers",
        "test_broker.py -k never_shared",
        Change(
            "mcp.server:McpServer.of",
            "[connection, scope, spec.timeout]",
            "[connection, spec.timeout]",
        ),
    ),
    Mutant(
        "a notice is not heard",
        "test_broker.py -k list_that_changed",
        Change("mcp.connection:Connection._heard", "self._notices += 1", "pass"),
    ),
    Mutant(
        "a dead session is kept",
        "test_broker.py -k 'hangs or restarted'",
        Change("mcp.connection:Connection._break", "self._broken.set()", "pass"),
    ),
    Mutant(
        "a server may start for ever",
        "test_broker.py -k never_gets_ready",
        Change("mcp.connection:Connection._live", "self.server.timeout_s", "None"),
    ),
    Mutant(
        "servers are never closed",
        "test_broker.py -k nobody_uses",
        Change("mcp.connection_pool:McpBroker._look_after", "unused_s > self._idle_s", "False"),
    ),
    Mutant(
        "an answer without result is dropped",
        "test_unreadable_answers.py -k 'programs and neither'",
        Change(
            "mcp.messages:_unreadable",
            "[each for each in requests.open_requests if each == request_id]",
            "[]",
        ),
    ),
]
