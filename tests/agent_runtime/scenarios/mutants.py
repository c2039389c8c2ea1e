"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant

MUTANTS = [
    Mutant(
        "an exit in a tool goes through",
        "test_user_code.py -k test_a_tool",
        Change(
            "errors.user_code:as_user_exception",
            "exit_error = ExitFromUserCode(f'{type(error).__name__}: {error_text(error)}')",
            "raise error\nexit_error = ExitFromUserCode(f'{type(error).__name__}: {error_text(error)}')",
        ),
    ),
    Mutant(
        "parts carry the runtime's keys",
        "test_nothing_internal.py -k stream_mode",
        Change(
            "orchestration.stream_parts:PartReader.read",
            "self._to_public(data) if mode in _MODES_WITH_CONFIGS else data",
            "data",
        ),
    ),
    Mutant(
        "an unusable input is taken",
        "test_call_input.py -k unusable_input",
        Change(
            "orchestration.call_runner:CallRunner.run",
            "check_input(context.input, self.agent)",
            "pass",
        ),
    ),
    Mutant(
        "a session that nothing keeps is taken",
        "test_call_input.py -k nothing_keeps",
        Change(
            "orchestration.local_agent:LocalAgent.run",
            "check_session(context, self.agent, has_session=self.has_session(context))",
            "pass",
        ),
    ),
    Mutant(
        "an odd result ends the run",
        "test_call_input.py -k cannot_be_used",
        Change(
            "run.tool_result:_texts",
            "raise UnusableResult(error_text(failure)) from failure",
            "raise",
        ),
    ),
    Mutant(
        "what may have run is said not to have",
        "test_call_input.py -k may_have_run",
        Change(
            "orchestration.turn_recovery:complete_dangling_tool_calls",
            "call_id in effects or call['name'] not in recorded_names",
            "call_id in effects",
        ),
    ),
    Mutant(
        "a signal in a task group is contained",
        "test_user_code.py -k task_group",
        Change(
            "errors.user_code:is_from_signal",
            "any((is_from_signal(nested_error) for nested_error in error.exceptions))",
            "False",
        ),
    ),
    Mutant(
        "an object as a node has no boundary",
        "test_user_code.py -k any_shape",
        Change(
            "orchestration.boundaries:contain_exceptions",
            "inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)",
            "inspect.iscoroutinefunction(function)",
        ),
    ),
    Mutant(
        "a mapped chain has no boundary",
        "test_user_code.py -k any_shape",
        Change(
            "orchestration.boundaries:with_boundaries",
            "RunnableBindingBase | RunnableEachBase",
            "RunnableBindingBase",
        ),
    ),
    Mutant(
        "a pair is two messages",
        "test_call_input.py -k pair_is",
        Change(
            "orchestration.messages:to_agent_input",
            "[value] if is_message_pair(value) else value",
            "value",
        ),
    ),
    Mutant(
        "an edit calls another tool",
        "test_held_attacks.py -k other_tool",
        Change(
            "orchestration.approvals:_check_decision",
            "edited.get('name', name) != name",
            "False",
        ),
    ),
    Mutant(
        "callables of a config are believed",
        "test_held_attacks.py -k config_answers",
        Change(
            "orchestration.subgraph_calls:is_subgraph_call",
            "callable(configurable.get(key)) and ambient_configurable.get(key) is not None",
            "callable(configurable.get(key))",
        ),
    ),
    Mutant(
        "the content alone is reserved",
        "test_held_attacks.py -k client_sends",
        Change("run.request:max_input_tokens", "_SENT_FIELDS", "()"),
    ),
    Mutant(
        "a stream goes on after a swallowed cancel",
        "test_swallowed_cancel.py -k stream",
        Change("run.model_call:ModelCall.chunk", "self.cancel_watch.check()", "pass"),
    ),
    Mutant(
        "a cancelled call begins another one",
        "test_swallowed_cancel.py -k begins_nothing",
        Change("run.state:Run.check_refusal", "run.context.progress.is_cancelled", "False"),
    ),
    Mutant(
        "a state's own class is lost",
        "test_value_of_a_unary_call.py",
        Change(
            "orchestration.local_agent:can_read_values_only",
            "isinstance(agent, Pregel) and agent._output_mapper is None",
            "isinstance(agent, Pregel)",
        ),
    ),
    Mutant(
        "the last of two names counts",
        "test_double_names.py",
        Change("strict_json:_reject_duplicates", "len(value) != len(pairs)", "False"),
    ),
    Mutant(
        "control characters are printed",
        "test_escapes.py",
        Change("escapes:_is_plain", "character.isprintable()", "True"),
    ),
    Mutant(
        "a traceback is printed raw",
        "test_escapes.py -k traceback",
        Change(
            "cli.main:main",
            "echo(SECRETS.text(''.join(traceback.format_exception(error))), err=True)",
            "raise",
        ),
    ),
]
