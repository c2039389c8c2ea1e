"""Agents that are warm before the call, and agents in processes of their own."""
