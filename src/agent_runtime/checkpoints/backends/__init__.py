"""Store checkpoints and session records in memory, SQLite or Redis."""
