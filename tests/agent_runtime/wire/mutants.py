"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant

MUTANTS = [
    Mutant(
        "names are not sent",
        "test_wire.py -k have_names",
        Change("run.request:ModelRequest.of", "kwargs['extra_headers']", "kwargs"),
    ),
]
