"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant, TextChange

MUTANTS = [
    Mutant(
        "order of layers",
        "test_stream.py -k outermost",
        Change("orchestration.middleware.base:compose", "reversed(layers)", "layers"),
    ),
    Mutant(
        "what is no layer is let through",
        "test_stream.py -k not_a_layer",
        Change(
            "orchestration.middleware.base:compose", "not isinstance(layer, Middleware)", "False"
        ),
    ),
    Mutant(
        "leaving a stream does not cancel",
        "test_stream.py -k leaving_a_stream",
        Change("orchestration.stream:AgentStream.__aexit__", "task.cancel()", "pass"),
    ),
    Mutant(
        "leaving does not wait for clean-up",
        "test_stream.py -k leaving_a_stream",
        Change(
            "orchestration.stream:AgentStream.__aexit__", "await _wait_until_done(task)", "pass"
        ),
    ),
    Mutant(
        "no back-pressure",
        "test_stream.py -k back_pressure",
        Change(
            "orchestration.stream:AgentStream._put",
            "len(self._pending_chunks) >= self._buffer",
            "False",
        ),
    ),
    Mutant(
        "runtime cancel as CancelledError",
        "test_stream.py -k call_cancelled",
        Change(
            "orchestration.stream:AgentStream._wait_for_chunk",
            "self._cancelled_error()",
            "asyncio.CancelledError",
        ),
    ),
    Mutant(
        "text emitted twice",
        "test_stream.py -k text_chunks",
        Change(
            "orchestration.stream_parts:PartReader._emit_new_messages",
            "message.id not in self._streamed_ids",
            "True",
        ),
    ),
    Mutant(
        "a unary call emits nothing",
        "test_stream.py -k text_chunks",
        Change("orchestration.local_agent:LocalAgent.run", "context.emit is not discard", "False"),
    ),
    Mutant(
        "the run's variable leaks",
        "test_stream.py -k leaks",
        Change("orchestration.core:Core.__call__", "current_run.reset(token)", "pass"),
    ),
    Mutant(
        "retry after the first chunk",
        "middleware/test_retry.py -k first_chunk",
        Change(
            "orchestration.middleware.retry:RetryMiddleware._retry_context",
            "progress.tools_started or has_emitted",
            "progress.tools_started",
        ),
    ),
    Mutant(
        "retry after the first tool",
        "middleware/test_retry.py -k tool_start",
        Change(
            "orchestration.middleware.retry:RetryMiddleware._retry_context",
            "progress.tools_started or has_emitted",
            "has_emitted",
        ),
    ),
    Mutant(
        "no resume from the checkpoint",
        "middleware/test_retry.py -k resumed",
        Change(
            "orchestration.local_agent:LocalAgent._set_resumable",
            "bool(snapshot.next)",
            "not bool(snapshot.next)",
        ),
    ),
    Mutant(
        "resume in mid-message",
        "middleware/test_retry.py -k seen_part",
        Change(
            "orchestration.middleware.retry:RetryMiddleware._retry_context",
            "context.streaming and progress.message_open",
            "False",
        ),
    ),
    Mutant(
        "control flow treated as failure",
        "test_runnable.py -k control_flow",
        Change("orchestration.call_runner:CallRunner.run", "GraphBubbleUp", "ZeroDivisionError"),
    ),
    Mutant(
        "cancelled calls are free",
        "test_stream.py -k cancelling_a_unary",
        Change("run.model_call:ModelCall.abort", "not isinstance(error, Exception)", "False"),
    ),
    Mutant(
        "a context serves two calls",
        "test_stream.py -k one_call",
        Change(
            "orchestration.call_runner:CallRunner.run",
            "context.progress.used",
            "False",
            only=(0,),
        ),
    ),
    Mutant(
        "a sessionless call is saved",
        "test_runnable.py -k nothing_is_left_behind",
        Change(
            "orchestration.local_agent:LocalAgent.__init__",
            "copy_graph(cast('Any', agent), checkpointer=None) if self._has_checkpointer else agent",
            "agent",
        ),
    ),
    Mutant(
        "a lost reservation stays held",
        "middleware/test_cost.py -k lost_answer",
        Change(
            "budgets.call_budget:CallBudget._release_on_failure",
            "self._pending_settlements.append(Settlement(request.reservation.operation_id, ZERO_AMOUNT))",
            "pass",
        ),
    ),
    Mutant(
        "the output is not capped",
        "middleware/test_cost.py -k capped",
        Change(
            "run.request:ModelRequest.limit_output",
            "self.kwargs[self.output_limit_param] = tokens",
            "pass",
        ),
    ),
    Mutant(
        "a provider's lies are believed",
        "middleware/test_cost.py -k lies",
        Change(
            "run.model_call:ModelCall._settle",
            "not is_complete or counts is None or (not is_plausible(counts, bool(self._messages), self._answer_chars))",
            "not is_complete or counts is None",
        ),
    ),
    Mutant(
        "inner agents do not draw on the outer budget",
        "middleware/test_cost.py -k used_as_a_tool",
        Change(
            "budgets.call_budget:CallBudget.__init__",
            "self.accounts = (*accounts, *(a for a in parent.accounts if a.key not in account_keys))",
            "pass",
        ),
    ),
    Mutant(
        "a cancelled call does not settle",
        "middleware/test_cost.py -k cancelled",
        Change(
            "orchestration.middleware.cost:CostTrackingMiddleware.process",
            "await call_budget.close()",
            "pass",
        ),
    ),
    Mutant(
        "what could not be written is lost",
        "middleware/test_cost.py -k could_not_be_written",
        Change(
            "budgets.call_budget:CallBudget._write_settlements",
            "self.ledger.defer(settlements)",
            "pass",
        ),
    ),
    Mutant(
        "scopes are not asked for",
        "middleware/test_auth.py -k scopes",
        Change("auth.scopes:check_scope", "raise Forbidden(needed)", "pass"),
    ),
    Mutant(
        "credentials go on inside",
        "middleware/test_auth.py -k goes_no_further",
        Change("types:AgentContext.with_principal", "sibling.credentials = None", "pass"),
    ),
    Mutant(
        "what a template requires is ignored",
        "middleware/test_auth.py -k may_need_more",
        Change(
            "factory.build_pipeline:_configured_layers",
            "dependencies.authenticators or runtime.auth.require",
            "dependencies.authenticators",
        ),
    ),
    Mutant(
        "a window has one too many",
        "middleware/test_concurrency.py -k 'hundred_of and memory'",
        Change(
            "limits.windows:MemorySlidingWindowStore.acquire",
            "len(times) >= window.amount",
            "len(times) > window.amount",
        ),
    ),
    Mutant(
        "a refused call is counted",
        "middleware/test_concurrency.py -k 'counts_in_none and redis'",
        TextChange(
            "limits.windows",
            "  if free > now then return {n, int(free - now), int(now)} end\nend\nfor n, key in ipairs(KEYS) do\n",
            "  if free > now then return {n, int(free - now), int(now)} end\n",
        ),
    ),
    Mutant(
        "empty windows are kept",
        "middleware/test_concurrency.py -k forgets",
        Change(
            "limits.windows:MemorySlidingWindowStore._live_times",
            "times_by_key.popitem(last=False)",
            "break",
        ),
    ),
    Mutant(
        "slots are not given back",
        "middleware/test_concurrency.py -k 'given_back and memory'",
        Change(
            "orchestration.middleware.concurrency:ConcurrencyMiddleware.process",
            "await self._release(store, acquired_permits, holder)",
            "pass",
        ),
    ),
    Mutant(
        "slots are held by the dead",
        "middleware/test_concurrency.py -k process_that_dies",
        TextChange(
            "limits.concurrency",
            "  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now))\n",
            "",
        ),
    ),
    Mutant(
        "inner agents are counted again",
        "middleware/test_concurrency.py -k counted_twice",
        Change(
            "run.state:ancestor_limits",
            "frozenset().union(*(run.context.progress.counted_limits for run in current.ancestry))",
            "frozenset()",
        ),
    ),
    Mutant(
        "a local limiter allows everything",
        "middleware/test_concurrency.py -k local_limiter",
        Change(
            "orchestration.middleware.rate_limit:_scale_to_share",
            "max(1, w.amount // share)",
            "w.amount",
        ),
    ),
    Mutant(
        "holds of parallel calls are freed by each other",
        "middleware/test_cost.py -k parallel_model_calls",
        Change(
            "budgets.call_budget:CallBudget._plan_reservation",
            "return (granted, None, LedgerRequest(self._pending_settlements.copy(), request))",
            "self._pending_settlements.append(Settlement(operation_id, ZERO_AMOUNT))\nreturn (granted, None, LedgerRequest(self._pending_settlements[:-1], request))",
        ),
    ),
    Mutant(
        "an order switches a guard off",
        "middleware/test_auth.py -k guard",
        Change(
            "factory.build_pipeline:build_layers",
            "names = _insert_enforced(list(names), configured)",
            "pass",
        ),
    ),
    Mutant(
        "skills may lead anywhere",
        "test_subagents.py -k nothing_outside",
        Change(
            "template.skills:read_skills",
            "not file.resolve().is_relative_to(root.resolve())",
            "False",
        ),
    ),
    Mutant(
        "a skill's reader goes anywhere",
        "test_subagents.py -k 'needed or outside'",
        Change(
            "tools.skill_reader:skill_reader.read_skill",
            "file.is_relative_to(folder) and file.is_file()",
            "file.is_file()",
        ),
    ),
    Mutant(
        "a command that steers is an answer",
        "test_caller_input.py -k steers_needs",
        Change("orchestration.caller_input:required_actions", "not steers", "True"),
    ),
    Mutant(
        "a subclass of Command is an input",
        "test_caller_input.py -k scope",
        Change(
            "orchestration.caller_input:required_actions",
            "not isinstance(value, Command)",
            "type(value) is not Command",
        ),
    ),
    Mutant(
        "roles are not looked at",
        "test_caller_input.py -k another_role",
        Change(
            "orchestration.middleware.auth:AuthMiddleware.process",
            "check_roles(context.input, self._roles)",
            "pass",
        ),
    ),
    Mutant(
        "an input sets any channel",
        "test_caller_input.py -k own_keys",
        Change(
            "orchestration.call_input:_check_state",
            "keys is not None and (not keys >= state.keys())",
            "False",
        ),
    ),
    Mutant(
        "calls of an answer are counted one by one",
        "test_answer_bounds.py -k no_call_of",
        Change(
            "orchestration.answer_bounds:_limit_calls",
            "run.check_tool_calls(min(len(shallow), max_calls))",
            "pass",
        ),
    ),
    Mutant(
        "an answer has any number of calls",
        "test_answer_bounds.py -k beyond_the_bound",
        Change("orchestration.answer_bounds:_limit_calls", "max_calls", "len(pending)", only=(1,)),
    ),
    Mutant(
        "arguments are nested at will",
        "test_answer_bounds.py -k stored",
        Change("orchestration.answer_bounds:_exceeds_max_depth", "True", "False"),
    ),
    Mutant(
        "roles are guessed",
        "test_caller_input.py -k another_role",
        Change(
            "orchestration.caller_input:_role_of",
            "value = convert_to_messages([cast('Any', value)])[0]",
            "return None",
        ),
    ),
    Mutant(
        "states of classes have no roles",
        "test_caller_input.py -k another_role",
        Change(
            "orchestration.caller_input:_iter_roles",
            "dataclasses.is_dataclass(value) and (not isinstance(value, type))",
            "False",
        ),
    ),
]
