"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant

MUTANTS = [
    Mutant(
        "an answer fails with its ledger",
        "test_sessions.py -k answer_stands",
        Change("cli.state:open_factory", "StoreError", "KeyError"),
    ),
    Mutant(
        "a decision is not paid",
        "test_sessions.py -k counted_recorded",
        Change(
            "cli.sessions:_resume",
            "open_factory(session_manager=manager, **shared_factory_arguments())",
            "open_factory(session_manager=manager)",
        ),
    ),
]
