"""Choose ports for servers of tests."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port that is free now.

    The server's own search starts at one place, so two test processes would meet there.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
