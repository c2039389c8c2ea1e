"""Conversations that survive: checkpoints, sessions, and the stores behind them."""
