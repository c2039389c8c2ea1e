"""Where checkpoints and sessions are stored: memory, one SQLite file, Redis."""
