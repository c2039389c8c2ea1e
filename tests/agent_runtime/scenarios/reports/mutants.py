"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant

MUTANTS = [
    Mutant(
        "a fee per request is not reserved",
        "test_service_tier.py -k fee",
        Change(
            "run.request:compute_cost_bound",
            "0 if highest_rates is None else highest_rates.request",
            "0",
        ),
    ),
    Mutant(
        "a forgotten session fails its call",
        "test_mcp_restart.py -k redeploy",
        Change(
            "mcp.connection:Connection._request",
            "if _is_not_executed(error):\n    raise _NotExecuted from error",
            "pass",
        ),
    ),
    Mutant(
        "a call that was read is sent again",
        "test_mcp_restart.py -k sent_twice",
        Change(
            "mcp.program:ProgramWriter.has_read",
            "self._end_offsets.get(request_id, 0) <= self._read_bytes",
            "False",
        ),
    ),
    Mutant(
        "a cancel is not told to the server",
        "test_mcp_cancel.py -k stdio",
        Change(
            "mcp.connection:Connection._request",
            "await self._cancel_request(session, call)",
            "pass",
        ),
    ),
    Mutant(
        "an old token stays with its agent",
        "test_mcp_token.py",
        Change(
            "mcp.connection_pool:McpConnectionPool._current_connection",
            "self._get_or_create(McpServer.from_spec(spec, folder, scope))",
            "connection",
        ),
    ),
    Mutant(
        "orphans of a server stay",
        "test_mcp_processes.py",
        Change("mcp.supervisor:main", "libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)", "pass"),
    ),
    Mutant(
        "orphans of a worker stay",
        "test_pool_signals.py",
        Change("pool.process.worker:_kill_process_group", "kill_descendants()", "pass"),
    ),
    Mutant(
        "one answer for every question",
        "test_parallel_interrupts.py",
        Change(
            "orchestration.approvals:resume_command",
            "len(interrupts) > 1 and questions",
            "False",
        ),
    ),
    Mutant(
        "an id that is not pending is ignored",
        "test_parallel_interrupts.py",
        Change(
            "orchestration.approvals:_decisions_by_id",
            "[key for key in decision if key not in pending_ids]",
            "[]",
        ),
    ),
    Mutant(
        "a stream keeps the last question",
        "test_two_questions_in_a_stream.py",
        Change(
            "orchestration.stream_parts:PartReader._emit_interrupts",
            "self.interrupts += new_interrupts",
            "self.interrupts = new_interrupts",
        ),
    ),
    Mutant(
        "cut arguments are the whole",
        "test_unreadable_arguments.py -k cut",
        Change(
            "run.model_call:ModelCall.end",
            "self.run.record_unreadable_arguments(self._arguments)",
            "pass",
        ),
    ),
    Mutant(
        "unreadable arguments are dropped",
        "test_unreadable_arguments.py",
        Change("orchestration.answer_bounds:_limit_calls", "_unreadable_calls(answer, run)", "[]"),
    ),
    Mutant(
        "structured content is nobody's",
        "test_mcp_structured.py",
        Change("mcp.answers:content_of", "structured is not None", "False"),
    ),
    Mutant(
        "running totals add up",
        "test_usage_on_every_chunk.py",
        Change(
            "run.model_call:ModelCall.chunk", "_is_running_total(usage, self._last_usage)", "False"
        ),
    ),
    Mutant(
        "an id stays unreadable for good",
        "test_unreadable_arguments.py -k used_again",
        Change(
            "run.state:Run.record_unreadable_arguments",
            "self.unreadable_arguments.pop(call_id, None)",
            "pass",
        ),
    ),
    Mutant(
        "an answer's class is unknown to its session",
        "test_structured_output_in_session.py",
        Change(
            "orchestration.local_agent:LocalAgent.__init__", "allow_answer_types(agent)", "pass"
        ),
    ),
]
