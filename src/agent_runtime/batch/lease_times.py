"""How long the process that runs an execution keeps it, and how often it says that it lives."""

LEASE_S = 15.0
"""How long an owner of another machine may be silent before its executions are anybody's."""
HEARTBEAT_S = 1.0
