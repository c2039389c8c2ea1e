"""Run calls: the executor, its layers, and the agent inside; streams and recovery."""
