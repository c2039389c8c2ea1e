"""An agent in a process of its own: the pipe, the worker at its end, and what the application does for it."""
