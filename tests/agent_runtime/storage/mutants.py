"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant

MUTANTS = [
    Mutant(
        "a cancelled waiter keeps its value",
        "test_fair_waiters.py -k passes_its_value",
        Change(
            "storage.fair_waiters:receive",
            "on_undelivered(future.result())",
            "pass",
        ),
    ),
    Mutant(
        "the newest waiter goes first",
        "test_fair_waiters.py -k Handover",
        Change(
            "storage.fair_waiters:FairWaiters.hand_over",
            "self._futures.popleft().set_result(value)",
            "self._futures.pop().set_result(value)",
        ),
    ),
    Mutant(
        "a newer file is opened",
        "test_sqlite_schema.py -k newer",
        Change(
            "storage.sqlite_schema:StoreSchema._stored_version",
            "file_version > FILE_VERSION",
            "False",
        ),
    ),
    Mutant(
        "a jump of the clock deletes",
        "test_deletion_clock.py -k stands_by_its_time",
        Change(
            "storage.deletion_clock:ClockState.deletion_time",
            "if self.offset_s is None:\n    return min(wall_s, self.latest_s)",
            "return wall_s\nif self.offset_s is None:\n    return min(wall_s, self.latest_s)",
        ),
    ),
    Mutant(
        "a lease by the wall clock never ends",
        "test_deletion_clock.py -k earlier_version",
        Change("storage.process_identity:is_lease_held", "until_boot_s > time.time()", "True"),
    ),
    Mutant(
        "half a password is shown",
        "test_store_url.py -k password",
        Change("storage.store_url:_Parser._redacted_address", "4096", "60"),
    ),
    Mutant(
        "a link is followed",
        "test_file_safety.py -k link",
        Change("storage.file_safety:check_file_ownership", "stat.S_ISLNK(status.st_mode)", "False"),
    ),
    Mutant(
        "files of others are used",
        "test_file_safety.py -k may_write",
        Change(
            "storage.file_safety:check_file_ownership",
            "status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)",
            "False",
        ),
    ),
    Mutant(
        "journals of a file are not looked at",
        "test_file_safety.py -k journal",
        Change(
            "storage.sqlite_file:SqliteFile.__init__", "('', '-wal', '-shm', '-journal')", "('',)"
        ),
    ),
    Mutant(
        "a script is sent by its hash alone",
        "test_redis_connection.py",
        Change(
            "storage.redis_server:arun_steps",
            "return (await _send(client, [request]))[0]",
            "raise",
        ),
    ),
    Mutant(
        "each call waits for a locked file anew",
        "test_sqlite_file.py -k stays_locked",
        Change(
            "storage.sqlite_file:SqliteFile._set_wait",
            "self._is_locked or waited_s >= full_s",
            "waited_s >= full_s",
        ),
    ),
    Mutant(
        "waits for a locked file add up",
        "test_sqlite_file.py -k wait_for_each_other",
        Change(
            "storage.sqlite_file:SqliteFile._run_locked",
            "self._set_wait(time.monotonic() - requested_at)",
            "self._is_locked = False",
        ),
    ),
    Mutant(
        "a ledger is asked again however long it takes",
        "test_sqlite_file.py -k within_one_wait",
        Change(
            "budgets.ledger.retries:atransact_with_retry",
            "time.monotonic() + wait_s > deadline",
            "False",
        ),
    ),
    Mutant(
        "steps do not see that a request failed",
        "test_operations.py -k failed_request",
        Change("storage.operations:drive", "steps.throw(error)", "next(steps)"),
        Change("storage.operations:adrive", "steps.throw(error)", "next(steps)"),
    ),
    Mutant(
        "a cancelled operation leaves its steps open",
        "test_operations.py -k cancelled",
        Change("storage.operations:adrive", "steps.close()", "None"),
    ),
    Mutant(
        "operations in memory run beside each other",
        "test_operations.py -k one_at_a_time",
        Change(
            "storage.operations:InlineStore.run_body",
            "with self._lock:\n    return body(self, *args)",
            "return body(self, *args)",
        ),
    ),
]
