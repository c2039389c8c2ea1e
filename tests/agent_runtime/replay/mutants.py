"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant

MUTANTS = [
    Mutant(
        "a replay runs tools",
        "test_cassette.py -k shipped",
        Change(
            "replay.player:_replayed_tool_class.run",
            "revive(answer) if is_recorded else cls.run(self, tool_input, *args, **kwargs)",
            "cls.run(self, tool_input, *args, **kwargs)",
        ),
    ),
    Mutant(
        "a replay takes any answer",
        "test_cassette.py -k first_difference",
        Change(
            "replay.cassette:Cassette._find_step",
            "normalize_request(kind, step.request) == comparable_request",
            "True",
        ),
    ),
    Mutant(
        "missing calls are no difference",
        "test_cassette.py -k fewer_calls",
        Change("replay.runs:_final_difference", "cassette.next_unplayed()", "None"),
    ),
]
