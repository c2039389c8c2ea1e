"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant

MUTANTS = [
    Mutant(
        "names are not sent",
        "../run/test_model_call.py -k have_names",
        Change("run.request:ModelRequest.of", "kwargs['extra_headers']", "kwargs"),
    ),
]
