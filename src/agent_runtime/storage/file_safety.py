"""Check that only we can write our files, as ssh does, since writers control their contents."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from agent_runtime.errors import ConfigurationError


def check_file_ownership(path: Path) -> None:
    """Raise ConfigurationError for a store's file that another user created or may write.

    That is a link, a file of another user, or one that group or others may write. A missing file is
    accepted.
    """
    try:
        status = path.lstat()
    except OSError:
        return
    if stat.S_ISLNK(status.st_mode):
        raise ConfigurationError(f"'{path}' is a link: name the file itself")
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"'{path}' is not a file")
    _check_owner(path, status)
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(f"others may write '{path}': check its contents, and chmod 600 it")


def check_folder_ownership(path: Path, *, is_private: bool = False) -> None:
    """Raise ConfigurationError for a folder in which others may create and replace files.

    A world-writable folder is accepted with the sticky bit (`/tmp`), which prevents replacing the
    files of others; with `is_private` group and others may have no access.
    """
    try:
        status = path.stat()
    except OSError:
        return
    if is_private:
        _check_owner(path, status)
    writers = stat.S_IWOTH | (stat.S_IWGRP if is_private else 0)
    is_sticky = bool(status.st_mode & stat.S_ISVTX) and not is_private
    if status.st_mode & writers and not is_sticky:
        raise ConfigurationError(
            f"others may write to the folder '{path}': chmod 700 it, or name another one"
        )


def _check_owner(path: Path, status: os.stat_result) -> None:
    user_id = os.geteuid()
    if status.st_uid not in (user_id, 0):
        raise ConfigurationError(
            f"'{path}' is the file of another user ({status.st_uid}, not {user_id}): name "
            "another one"
        )
