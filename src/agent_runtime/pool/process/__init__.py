"""Agents in processes of their own: instances, their scheduler, and what is done when one dies."""
