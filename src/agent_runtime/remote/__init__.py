"""An agent in another process: messages, the host that serves it, and the worker that runs it."""
