"""Behaviour that every implementation of a broker or of a batch backend shares, as tests to subclass."""
