"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant

MUTANTS = [
    Mutant(
        "a replay runs tools",
        "test_replay.py -k shipped",
        Change(
            "replay.player:_taped_class.run",
            "revived(answer) if known else cls.run(self, tool_input, *args, **kwargs)",
            "cls.run(self, tool_input, *args, **kwargs)",
        ),
    ),
    Mutant(
        "a replay takes any answer",
        "test_replay.py -k first_difference",
        Change("replay.cassette:Tape._found", "comparable(kind, step.request) == asked", "True"),
    ),
    Mutant(
        "missing calls are no difference",
        "test_replay.py -k fewer_calls",
        Change("replay.runs:_difference_at_the_end", "tape.unplayed()", "None"),
    ),
]
