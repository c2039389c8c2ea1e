"""Run an agent in another process: messages, the host's service, the worker's side."""
