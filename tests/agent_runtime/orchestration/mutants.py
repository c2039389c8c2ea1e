"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant, TextChange

MUTANTS = [
    Mutant(
        "order of layers",
        "test_contracts.py -k outermost",
        Change("orchestration.middleware.base:compose", "reversed(layers)", "layers"),
    ),
    Mutant(
        "what is no layer is let through",
        "test_contracts.py -k not_a_layer",
        Change(
            "orchestration.middleware.base:compose", "not isinstance(layer, Middleware)", "False"
        ),
    ),
    Mutant(
        "leaving a stream does not cancel",
        "test_contracts.py -k leaving_a_stream",
        Change("orchestration.stream:AgentStream.__aexit__", "task.cancel()", "pass"),
    ),
    Mutant(
        "leaving does not wait for clean-up",
        "test_contracts.py -k leaving_a_stream",
        Change("orchestration.stream:AgentStream.__aexit__", "await _finished(task)", "pass"),
    ),
    Mutant(
        "no back-pressure",
        "test_contracts.py -k back_pressure",
        Change(
            "orchestration.stream:AgentStream._put", "len(self._waiting) >= self._buffer", "False"
        ),
    ),
    Mutant(
        "runtime cancel as CancelledError",
        "test_contracts.py -k call_cancelled",
        Change(
            "orchestration.stream:AgentStream._arrival",
            "self._cancelled()",
            "asyncio.CancelledError",
        ),
    ),
    Mutant(
        "text emitted twice",
        "test_contracts.py -k text_chunks",
        Change(
            "orchestration.stream_parts:PartReader._new", "message.id not in self._streamed", "True"
        ),
    ),
    Mutant(
        "a unary call emits nothing",
        "test_contracts.py -k text_chunks",
        Change("orchestration.local_agent:BareAgent.run", "context.emit is not discard", "False"),
    ),
    Mutant(
        "the run's variable leaks",
        "test_contracts.py -k leaks",
        Change("orchestration.core:Core.__call__", "current_run.reset(token)", "pass"),
    ),
    Mutant(
        "retry after the first chunk",
        "test_retry.py -k first_chunk",
        Change(
            "orchestration.middleware.retry:RetryMiddleware._again",
            "progress.tools_started or opened",
            "progress.tools_started",
        ),
    ),
    Mutant(
        "retry after the first tool",
        "test_retry.py -k tool_start",
        Change(
            "orchestration.middleware.retry:RetryMiddleware._again",
            "progress.tools_started or opened",
            "opened",
        ),
    ),
    Mutant(
        "no resume from the checkpoint",
        "test_retry.py -k resumed",
        Change(
            "orchestration.local_agent:BareAgent._note_resumable",
            "bool(snapshot.next)",
            "not bool(snapshot.next)",
        ),
    ),
    Mutant(
        "resume in mid-message",
        "test_retry.py -k seen_part",
        Change(
            "orchestration.middleware.retry:RetryMiddleware._again",
            "context.streaming and progress.message_open",
            "False",
        ),
    ),
    Mutant(
        "control flow treated as failure",
        "test_runnable.py -k control_flow",
        Change("orchestration.executor:AgentExecutor._call", "GraphBubbleUp", "ZeroDivisionError"),
    ),
    Mutant(
        "cancelled calls are free",
        "test_contracts.py -k cancelling_a_unary",
        Change("run.model_call:ModelCall.abort", "not isinstance(error, Exception)", "False"),
    ),
    Mutant(
        "a context serves two calls",
        "test_contracts.py -k one_call",
        Change(
            "orchestration.executor:AgentExecutor._call",
            "context.progress.started",
            "False",
            only=(0,),
        ),
    ),
    Mutant(
        "a sessionless call is saved",
        "test_runnable.py -k nothing_is_left_behind",
        Change(
            "orchestration.local_agent:BareAgent.__init__",
            "copy_of_graph(cast('Any', agent), checkpointer=None) if self._has_checkpointer else agent",
            "agent",
        ),
    ),
    Mutant(
        "a lost reservation stays held",
        "test_cost.py -k lost_answer",
        Change(
            "budgets.call_budget:Purse._undone_if_lost",
            "self._to_end.append(Ending(trip.reservation.operation_id, NOTHING))",
            "pass",
        ),
    ),
    Mutant(
        "the output is not capped",
        "test_cost.py -k capped",
        Change("run.request:ModelRequest.limit_output", "self.kwargs[self.cap] = tokens", "pass"),
    ),
    Mutant(
        "a provider's lies are believed",
        "test_cost.py -k lies",
        Change(
            "run.model_call:ModelCall._settle",
            "not whole or counts is None or (not believable(counts, bool(self._messages), self._chars))",
            "not whole or counts is None",
        ),
    ),
    Mutant(
        "inner agents do not draw on the outer budget",
        "test_cost.py -k used_as_a_tool",
        Change(
            "budgets.call_budget:Purse.__init__",
            "self.accounts = (*accounts, *(a for a in parent.accounts if a.key not in own))",
            "pass",
        ),
    ),
    Mutant(
        "a cancelled call does not settle",
        "test_cost.py -k cancelled",
        Change(
            "orchestration.middleware.cost:CostTrackingMiddleware.process",
            "await purse.close()",
            "pass",
        ),
    ),
    Mutant(
        "what could not be written is lost",
        "test_cost.py -k could_not_be_written",
        Change("budgets.call_budget:Purse._write", "self.ledger.keep(endings)", "pass"),
    ),
    Mutant(
        "scopes are not asked for",
        "test_auth_layer.py -k scopes",
        Change("auth.scopes:check_scope", "raise Forbidden(needed)", "pass"),
    ),
    Mutant(
        "credentials go on inside",
        "test_auth_layer.py -k goes_no_further",
        Change("types:AgentContext.with_principal", "sibling.credentials = None", "pass"),
    ),
    Mutant(
        "what a template requires is ignored",
        "test_auth_layer.py -k may_need_more",
        Change(
            "factory.build_pipeline:_configured",
            "seats.authenticators or runtime.auth.require",
            "seats.authenticators",
        ),
    ),
    Mutant(
        "a window has one too many",
        "test_limits.py -k 'hundred_of and memory'",
        Change(
            "limits.windows:MemoryWindows.acquire",
            "len(times) >= window.amount",
            "len(times) > window.amount",
        ),
    ),
    Mutant(
        "a refused call is counted",
        "test_limits.py -k 'counts_in_none and redis'",
        TextChange(
            "limits.windows",
            "  if free > now then return {n, int(free - now), int(now)} end\nend\nfor n, key in ipairs(KEYS) do\n",
            "  if free > now then return {n, int(free - now), int(now)} end\n",
        ),
    ),
    Mutant(
        "empty windows are kept",
        "test_limits.py -k forgets",
        Change("limits.windows:MemoryWindows._of", "kept.popitem(last=False)", "break"),
    ),
    Mutant(
        "slots are not given back",
        "test_limits.py -k 'given_back and memory'",
        Change(
            "orchestration.middleware.concurrency:ConcurrencyMiddleware.process",
            "await self._give_back(store, taken, holder)",
            "pass",
        ),
    ),
    Mutant(
        "slots are held by the dead",
        "test_limits.py -k process_that_dies",
        TextChange(
            "limits.concurrency",
            "  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now))\n",
            "",
        ),
    ),
    Mutant(
        "inner agents are counted again",
        "test_limits.py -k counted_twice",
        Change(
            "run.state:counted_around",
            "frozenset().union(*(run.context.progress.counted for run in around.lineage))",
            "frozenset()",
        ),
    ),
    Mutant(
        "a local limiter allows everything",
        "test_limits.py -k local_limiter",
        Change(
            "orchestration.middleware.rate_limit:_shares", "max(1, w.amount // share)", "w.amount"
        ),
    ),
    Mutant(
        "holds of parallel calls are freed by each other",
        "test_cost.py -k parallel_model_calls",
        Change(
            "budgets.call_budget:Purse._planned",
            "return (granted, None, Trip(self._to_end.copy(), reservation))",
            "self._to_end.append(Ending(operation_id, NOTHING))\nreturn (granted, None, Trip(self._to_end[:-1], reservation))",
        ),
    ),
    Mutant(
        "an order switches a guard off",
        "test_auth_layer.py -k guard",
        Change(
            "factory.build_pipeline:build_layers",
            "names = _with_enforced(list(names), configured)",
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
        Change("orchestration.caller_input:actions_of", "not steers", "True"),
    ),
    Mutant(
        "a subclass of Command is an input",
        "test_caller_input.py -k scope",
        Change(
            "orchestration.caller_input:actions_of",
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
            "orchestration.answer_bounds:_bounded",
            "run.check_calls(min(len(shallow), most))",
            "pass",
        ),
    ),
    Mutant(
        "an answer has any number of calls",
        "test_answer_bounds.py -k beyond_the_bound",
        Change("orchestration.answer_bounds:_bounded", "most", "len(pending)", only=(1,)),
    ),
    Mutant(
        "arguments are nested at will",
        "test_answer_bounds.py -k stored",
        Change("orchestration.answer_bounds:_is_deep", "True", "False"),
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
            "orchestration.caller_input:_roles_in",
            "dataclasses.is_dataclass(value) and (not isinstance(value, type))",
            "False",
        ),
    ),
]
