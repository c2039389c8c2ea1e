"""Agents that are ready before the call: a cache of executors and session contexts."""
