"""A store's file that somebody else put there, or may write, is not used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent_runtime import ConfigurationError, SessionManager
from agent_runtime.budgets import open_ledger
from agent_runtime.cli.state import settings, state_folder
from agent_runtime.storage.file_safety import check_file_ownership, check_folder_ownership


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "important.txt"
    target.write_text("important")
    (tmp_path / "ledger.db").symlink_to(target)
    with pytest.raises(ConfigurationError, match="is a link"):
        open_ledger(f"sqlite:{tmp_path / 'ledger.db'}")
    assert target.read_text() == "important"


def test_a_journal_that_others_may_write_is_not_used(tmp_path: Path) -> None:
    for suffix in ("-wal", "-shm", "-journal"):
        planted = tmp_path / f"k.db{suffix}"
        planted.touch()
        planted.chmod(0o666)
        with pytest.raises(ConfigurationError, match="others may write"):
            SessionManager.from_url(f"sqlite:{tmp_path / 'k.db'}")
        planted.unlink()


@pytest.mark.parametrize("mode", [0o666, 0o622, 0o660])
def test_a_file_that_others_may_write_is_not_used(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "sessions.db"
    path.touch()
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="others may write"):
        SessionManager.from_url(f"sqlite:{path}")
    assert path.read_bytes() == b""


def test_a_folder_that_all_may_write_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ConfigurationError, match="others may write to the folder"):
        SessionManager.from_url(f"sqlite:{folder / 'sessions.db'}")
    folder.chmod(0o1777)  # as /tmp
    SessionManager.from_url(f"sqlite:{folder / 'sessions.db'}")


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
def test_the_state_folder_is_its_owner_s(
    tmp_path: Path, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(mode)
    monkeypatch.setenv("AGENT_RUNTIME_HOME", str(folder))
    settings.cache_clear()
    try:
        with pytest.raises(ConfigurationError, match="chmod 700"):
            state_folder()
        folder.chmod(0o700)
        assert state_folder() == folder
    finally:
        settings.cache_clear()


def test_a_file_of_another_user_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.db"
    path.touch(mode=0o600)
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(path, 12345, 12345)
        os.chown(folder, 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ConfigurationError, match="another user"):
        check_file_ownership(path)
    with pytest.raises(ConfigurationError, match="another user"):
        check_folder_ownership(folder, is_private=True)
