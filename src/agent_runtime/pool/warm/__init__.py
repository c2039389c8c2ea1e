"""Cache executors and session contexts that are ready before the call."""
