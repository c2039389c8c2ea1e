"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant

MUTANTS = [
    Mutant(
        "limits not checked",
        "../run/test_gate.py -k refused_before",
        Change("run.gate:ModelGate._check_ancestry", "_check_limits(ancestor)", "pass"),
        Change("run.gate:ModelGate._admit", "_check_limits(ancestor)", "pass"),
    ),
    Mutant(
        "a swallowed refusal is forgotten",
        "../run/test_gate.py -k cure",
        Change("run.state:Run.refuse", "self.refusal = error", "pass"),
    ),
    Mutant(
        "nested agents do not count",
        "../run/test_gate.py -k agent_used_as_a_tool",
        Change("run.state:Run.__init__", "() if parent is None else parent.ancestry", "()"),
    ),
    Mutant(
        "calls counted twice",
        "../run/test_gate.py -k counted_once",
        Change("run.callback_gate:CallbackGate.on_chat_model_start", "GATED_TAG", "None"),
        Change("run.callback_gate:CallbackGate.on_tool_start", "GATED_TAG", "None"),
    ),
    Mutant(
        "no model call timeout",
        "../run/test_gate.py -k times_out",
        Change(
            "run.gated_model:_timeout_s",
            "None if run is None or call is None else run.gate.model_call_timeout_s",
            "None",
        ),
    ),
    Mutant(
        "a blocking model call is not timed",
        "../run/test_gate.py -k blocking_model_call",
        Change("run.gated_model:_run_blocking", "remaining_s is None", "True"),
    ),
    Mutant(
        "no idle timeout",
        "../run/test_gate.py -k is_idle",
        Change(
            "orchestration.local_agent:LocalAgent._with_idle_timeout",
            "self._idle_timeout_s is None",
            "True",
        ),
    ),
    Mutant(
        "no run timeout",
        "../run/test_gate.py -k run_timeout",
        Change(
            "orchestration.call_runner:CallRunner._within_deadline",
            "context.deadline",
            "None",
            only=(2,),
        ),
    ),
    Mutant(
        "threads not counted",
        "../run/test_gate.py -k threads_of_sync_tools",
        Change(
            "run.gated_tool:_thread_method._run", "ancestor.running_threads.add(thread_id)", "pass"
        ),
    ),
    Mutant(
        "accounts admit anybody",
        "../providers/test_limiter.py -k never_more",
        Change(
            "providers.limiter:ProviderAccount._has_capacity",
            "self.limit is None or self.in_flight < self.limit",
            "True",
        ),
    ),
    Mutant(
        "an overload changes nothing",
        "../providers/test_limiter.py -k halves",
        Change(
            "providers.limiter:ProviderAccount._on_call_end",
            "error is not None and is_overload",
            "False",
            only=(1,),
        ),
    ),
    Mutant(
        "places are not given back",
        "../providers/test_limiter.py -k 'take_places or vendors'",
        Change("run.model_call:ModelCall.abort", "self._permit.release(error)", "pass"),
    ),
    Mutant(
        "retry-after is not obeyed",
        "../providers/test_limiter.py -k retry_after",
        Change(
            "providers.limiter:ProviderAccount._pause_for",
            "self._paused_until = max(self._paused_until, paused_until)",
            "pass",
        ),
    ),
    Mutant(
        "no pace is learned",
        "../providers/test_rate_estimate.py",
        Change(
            "providers.rate_estimate:RateEstimator.on_reject",
            "self.rate = BACKOFF_FACTOR * success_count / elapsed_s",
            "pass",
        ),
    ),
    Mutant(
        "the pace never rises",
        "../providers/test_rate_estimate.py",
        Change(
            "providers.rate_estimate:RateEstimator.on_success",
            "self.rate * (1 + self._step)",
            "self.rate",
        ),
    ),
    Mutant(
        "a packed flood is read",
        "../providers/test_answers.py -k flood",
        Change(
            "providers.http_transport:_Decoder._check_size",
            "self._total_bytes > MAX_ANSWER_BYTES",
            "False",
        ),
    ),
    Mutant(
        "a cut answer is free",
        "../providers/test_answers.py -k cut",
        Change("providers.answers:settle_failure", "call.note_usage(_usage_of(error))", "pass"),
    ),
    Mutant(
        "a cut answer is asked for again",
        "../providers/test_answers.py -k cut",
        Change(
            "orchestration.failures:",
            "TRUNCATION_ERRORS | {'AnswerTooLarge'}",
            "frozenset({'AnswerTooLarge'})",
        ),
    ),
    Mutant(
        "one answer of many is reserved",
        "../run/test_gate.py -k answers_that",
        Change(
            "run.request:ModelRequest.find_output_limit", "self.answer_count = answer_count", "pass"
        ),
    ),
    Mutant(
        "a model's own arguments have no price",
        "../run/test_gate.py -k own_arguments",
        Change(
            "run.request:_request_conditions",
            "(kwargs.get('extra_body'), *model_extras)",
            "(kwargs.get('extra_body'),)",
        ),
    ),
    Mutant(
        "a budget's limit is an argument everywhere",
        "../run/test_gate.py -k field_or",
        Change(
            "run.request:ModelRequest.limit_output",
            "self.field_limit",
            "self.kwargs[self.output_limit_param]",
        ),
    ),
]
