"""Secrets: keep them out of everything that is written, and tell weak ones from strong ones."""
