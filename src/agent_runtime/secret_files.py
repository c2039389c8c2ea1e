"""Read secrets from files that only their owner may read."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from agent_runtime.bounded_file import open_regular
from agent_runtime.errors import ConfigurationError
from agent_runtime.secrets.redaction import SECRETS
from agent_runtime.size_limits import size_limit

LOG = logging.getLogger("agent_runtime.secrets")
LOG.addHandler(logging.NullHandler())
MAX_BYTES = size_limit("secret_bytes")
_WARNED: set[Path] = set()


def read_secret_file(path: str | Path, *, min_bytes: int = 1) -> str:
    """Return the secret in a file, registered for redaction, without one trailing newline.

    A trailing newline is logged as a warning. Raises ConfigurationError, without the content, for a
    file that is missing, not UTF-8, too short or too long, or readable by others than its owner and
    group.
    """
    file = Path(path).expanduser()
    try:
        with open(open_regular(file), "rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            content = opened.read(MAX_BYTES + 1)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"cannot read the secret file {file}: {type(error).__name__}"
        ) from None
    if mode & stat.S_IROTH:
        raise ConfigurationError(f"everybody may read the secret file {file}: chmod 600 it")
    if text.endswith("\n"):
        text = text.removesuffix("\n").removesuffix("\r")
        if file not in _WARNED:  # a template's secret is read for each agent
            _WARNED.add(file)
            LOG.warning(
                "the secret file %s ends with a newline, which is not taken as part of the secret",
                file,
            )
    if not min_bytes <= len(text.encode()) <= MAX_BYTES:
        raise ConfigurationError(f"the secret in {file} has {min_bytes} to {MAX_BYTES} bytes")
    SECRETS.add(text)
    return text
