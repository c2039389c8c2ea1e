"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant

MUTANTS = [
    Mutant(
        "two threads make tools at once",
        "test_function_tool.py",
        Change(
            "tools.function_tool:structured_tool",
            "with _SCHEMA_LOCK:\n    return StructuredTool.from_function(*args, **options)",
            "if True:\n    return StructuredTool.from_function(*args, **options)",
        ),
    ),
    Mutant(
        "rows behind an open quote are not said",
        "test_csv_data.py -k cannot_be_read_as",
        Change("tools.csv_data:_row_problems", "hidden_row_count", "False", only=(1,)),
    ),
    Mutant(
        "a result of any size is taken",
        "../run/test_result_bound.py -k fifty",
        Change(
            "run.result_bound:_SizeBudget._truncate_text",
            "len(data) <= self.remaining_text_bytes",
            "True",
        ),
    ),
    Mutant(
        "an error's text has no bound",
        "../run/test_result_bound.py -k every_form",
        Change(
            "run.gated_tool:_arun_checked",
            "truncate_result(tool, await inner(tool, tool_input, *args, **kwargs))",
            "await inner(tool, tool_input, *args, **kwargs)",
        ),
    ),
    Mutant(
        "small parts have no bound",
        "../run/test_result_bound.py -k many_small",
        Change(
            "run.result_bound:_SizeBudget._truncate_parts",
            "is_text and self.remaining_text_bytes <= PART_OVERHEAD_BYTES",
            "False",
        ),
    ),
    Mutant(
        "what stands beside a text has no bound",
        "../run/test_result_bound.py -k nothing_passes",
        Change("run.result_bound:_SizeBudget._drop_large_extras", "not extras", "True"),
    ),
]
