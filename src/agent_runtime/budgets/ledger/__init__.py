"""Ledgers: accounts, reservations and spending, in memory, in SQLite or in Redis."""
