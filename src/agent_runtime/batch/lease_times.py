"""Define the lease of an execution and the interval of its heartbeat."""

LEASE_S = 15.0
"""Seconds without a heartbeat after which another process may take over an execution."""
HEARTBEAT_S = 1.0
