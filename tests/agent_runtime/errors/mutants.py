"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant

MUTANTS = [
    Mutant(
        "a pause grows for ever",
        "test_backoff.py -k overflows",
        Change(
            "errors.backoff:Backoff.pause_s", "min(failures - 1, _MAX_DOUBLINGS)", "failures - 1"
        ),
    ),
    Mutant(
        "callers return together",
        "test_backoff.py -k spreads",
        Change("errors.backoff:Backoff.pause_s", "random.random()", "1.0"),
    ),
]
