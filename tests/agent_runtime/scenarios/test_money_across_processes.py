"""Processes that are killed, replies that are lost.

What the provider bills never exceeds the budget.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.money import spend_rounds


def test_no_kill_and_no_lost_reply_overspends(redis_url: str, tmp_path: Path) -> None:
    billed, spent, budget = spend_rounds(
        redis_url, tmp_path, processes=3, at_once=40, calls=150, rounds=1, budget="0.75", kill=True
    )
    assert billed <= spent <= budget
    assert billed > budget / 2


@pytest.mark.integration
def test_without_kills_the_ledger_is_the_provider_s_truth(redis_url: str, tmp_path: Path) -> None:
    billed, spent, budget = spend_rounds(
        redis_url, tmp_path, processes=2, at_once=40, calls=600, rounds=1, budget="0.8", kill=False
    )
    assert billed == spent
    assert budget * 0.9 < spent <= budget
