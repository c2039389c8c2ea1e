"""Behaviour that every broker and every batch backend shares, as tests."""
