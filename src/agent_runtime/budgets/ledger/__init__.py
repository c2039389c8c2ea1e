"""Store accounts, reservations and spending in memory, SQLite or Redis."""
