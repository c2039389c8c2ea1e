"""Accounts at providers: their concurrency, their rate, and their errors."""
