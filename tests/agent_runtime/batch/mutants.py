"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant, TextChange

MUTANTS = [
    Mutant(
        "results are seen before they are kept",
        "test_worker_pool.py -k store_that_fails",
        Change(
            "batch.journal.writer:JournalWriter._run",
            "await self._write([outcome.change for outcome in outcomes])",
            "if (reportable := [e for e in outcomes if e.is_reportable]):\n    self._on_persisted(reportable)\nawait self._write([outcome.change for outcome in outcomes])\ncontinue",
        ),
    ),
    Mutant(
        "a stale owner writes",
        "journal/test_sqlite.py -k one_owner",
        Change(
            "batch.journal.sqlite:SqliteJournal.write",
            "self._check_owner(execution_id, token)",
            "pass",
        ),
    ),
    Mutant(
        "two owners at once",
        "journal/test_redis.py -k one_owner",
        TextChange("batch.journal.redis", "if alive then return", "if false then return"),
    ),
    Mutant(
        "a stale owner writes to Redis",
        "journal/test_redis.py -k one_owner",
        TextChange(
            "batch.journal.redis",
            "if not token or token ~= ARGV[1] or owner == '' then return 'lost' end",
            "",
        ),
    ),
    Mutant(
        "ids are taken twice",
        "journal/test_sqlite.py -k 'ids_are or alike'",
        TextChange("batch.journal.redis", "if redis.call('HEXISTS', KEYS[2], id) == 1 or", "if"),
    ),
    Mutant(
        "low starves",
        "test_queue.py -k starves",
        Change(
            "batch.queue:TaskQueue.get_nowait",
            "level + max(0.0, now - line[0].accepted_at) / self._aging_s",
            "level",
        ),
    ),
    Mutant(
        "a batch's queue has no bound",
        "test_queue.py -k wait_for_room",
        Change(
            "batch.queue:TaskQueue.reserve_nowait",
            "self._task_count + self.reserved >= self.size",
            "False",
        ),
    ),
    Mutant(
        "producers are not held back",
        "test_worker_pool.py -k held_back",
        Change(
            "batch.queue:TaskQueue.reserve",
            "self._task_count + self.reserved >= self.size and (not self._closed)",
            "False",
        ),
    ),
    Mutant(
        "limits of agents do not hold",
        "test_worker_pool.py -k limit_of_its_own",
        Change(
            "batch.queue:TaskQueue.get_nowait",
            "limit is not None and self._running[agent] >= limit",
            "False",
        ),
    ),
    Mutant(
        "a woken worker keeps its turn",
        "test_queue.py -k passes_its_turn",
        Change(
            "batch.queue:TaskQueue.__init__",
            "FairWaiters(lambda _: self._getters.hand_over(None))",
            "FairWaiters(lambda _: None)",
        ),
    ),
    Mutant(
        "everything is tried again",
        "test_worker_pool.py -k transient",
        Change(
            "batch.error_handling:handle_execution_error",
            "kind in retry.classes and attempt < retry.attempts",
            "attempt < retry.attempts",
        ),
    ),
    Mutant(
        "retries have no budget",
        "test_worker_pool.py -k have_a_budget",
        Change(
            "batch.error_handling:RetryBudget.take",
            "self.used >= FREE_RETRIES + self.share * self.tasks",
            "False",
        ),
    ),
    Mutant(
        "a refusal is an attempt",
        "test_worker_pool.py -k says_when",
        Change(
            "batch.task_runner:TaskRunner._handle_failure", "decision.action == 'postpone'", "False"
        ),
        Change(
            "batch.task_runner:TaskRunner._schedule_retry", "decision.action == 'postpone'", "False"
        ),
    ),
    Mutant(
        "fail fast goes on",
        "test_worker_pool.py -k 'failures or fail_fast'",
        Change(
            "batch.task_runner:TaskRunner.apply_failure_policy",
            "settings.fail_fast or not settings.continue_on_error",
            "False",
        ),
    ),
    Mutant(
        "fail fast lets others end",
        "test_worker_pool.py -k fail_fast_stops",
        Change(
            "batch.runner:ExecutionRunner._shutdown",
            "self.active.settings.fail_fast and status == 'failed'",
            "False",
        ),
    ),
    Mutant(
        "a stubborn task is waited for",
        "test_worker_pool.py -k ignores_its_cancel",
        Change("batch.heartbeat:Heartbeat._check_slow_tasks", "self._abandon(attempt)", "pass"),
    ),
    Mutant(
        "cancel does not stop",
        "test_worker_pool.py -k cancel_begins",
        Change("batch.worker_pool:WorkerPool.shutdown", "attempt.stop()", "pass"),
    ),
    Mutant(
        "cancel begins more",
        "test_worker_pool.py -k get_free",
        Change("batch.runner:ExecutionRunner.end", "self.active.queue.pause()", "pass"),
    ),
    Mutant(
        "what was running is not run again",
        "../scenarios/test_batch_crashes.py -k kill",
        Change("batch.prefetcher:Prefetcher.load", "active.writer.enqueue(outcome)", "pass"),
    ),
    Mutant(
        "finished tasks are run again",
        "test_worker_pool.py -k on_every_journal",
        Change(
            "batch.journal.sqlite:SqliteJournal.write",
            "self._db.executemany(update, rows)",
            "pass",
        ),
    ),
    Mutant(
        "poison is never put aside",
        "test_worker_pool.py -k lost_its_workers",
        Change("batch.task_runner:TaskRunner.record_lost", "row.dispatch_count < max_lost", "True"),
    ),
    Mutant(
        "the batch has no account",
        "test_forecast.py -k overspends",
        Change(
            "batch.task_runner:TaskRunner._build_call", "call.accounts = (active.account,)", "pass"
        ),
    ),
    Mutant(
        "the budget's end fails tasks",
        "test_forecast.py -k overspends",
        Change(
            "batch.task_runner:TaskRunner._handle_exception",
            "isinstance(error, BudgetExceeded) and account is not None and (error.account == account.key)",
            "False",
        ),
    ),
    Mutant(
        "nobody is asked",
        "test_forecast.py -k approval",
        Change(
            "batch.prefetcher:Prefetcher._publish_forecast",
            "needs_approval(active.execution, settings)",
            "False",
        ),
    ),
    Mutant(
        "the pilot is all",
        "test_forecast.py -k approval",
        Change(
            "batch.prefetcher:Prefetcher._plan_pilot",
            "positions",
            "range(1, active.progress.total + 1)",
            only=(2,),
        ),
    ),
    Mutant(
        "a name is not the ledger's",
        "../scenarios/test_batch_crashes.py -k kill",
        Change(
            "budgets.call_budget:CallBudget._plan_reservation",
            "key or f'{self._operation_id}:{self._reservation_number}'",
            "f'{self._operation_id}:{self._reservation_number}'",
        ),
    ),
    Mutant(
        "a name changes at each start",
        "../scenarios/test_batch_crashes.py -k kill",
        Change("batch.attempt:idempotency_keys", "1", "row.dispatch_count"),
    ),
    Mutant(
        "sessions begin anew",
        "../scenarios/test_batch_crashes.py -k sessions",
        Change("batch.task_runner:TaskRunner._resume_session", "call.input = None", "pass"),
    ),
    Mutant(
        "a bad row ends the file",
        "test_sources.py -k jsonl",
        Change(
            "batch.sources:_jsonl_rows",
            "yield SourceRow(location, None, f'not JSON: {error}')\ncontinue",
            "return",
        ),
    ),
    Mutant(
        "templates change in mid-batch",
        "test_worker_pool.py -k one_version",
        Change(
            "batch.backends:AsyncioBackend._agent",
            "cached_agent is not None and (not task.inputs)",
            "False",
        ),
    ),
    Mutant(
        "prompts are the first task's",
        "test_backends.py -k inputs_fill",
        Change(
            "batch.backends:ProcessBackend._agent",
            "agent.with_prompt(render_prompt(template, values)) if template.inputs else agent",
            "agent",
        ),
    ),
    Mutant(
        "what ended meanwhile is run again",
        "test_ingestion.py -k late_answer",
        Change(
            "batch.prefetcher:Prefetcher._fill_queue",
            "row.seq not in self.loaded_seqs and row.seq not in self._ended_during_query",
            "row.seq not in self.loaded_seqs",
        ),
    ),
    Mutant(
        "a promised task is forgotten",
        "test_ingestion.py -k being_accepted",
        Change(
            "batch.active_execution:ActiveExecution.open_tasks",
            "self.progress.total - self.progress.ended + self.queue.reserved",
            "self.progress.total - self.progress.ended",
        ),
    ),
    Mutant(
        "what a budget interrupts is an answer",
        "test_forecast.py -k conversations",
        Change("batch.task_runner:TaskRunner.run_attempt", "answer.interrupts", "False"),
    ),
    Mutant(
        "only the first ones are read",
        "test_worker_pool.py -k settings_change",
        Change("batch.prefetcher:Prefetcher._fill_queue", "self._wakeup.set()", "pass"),
    ),
    Mutant(
        "a place that is taken is asked for for ever",
        "test_runner.py -k hiccup",
        Change(
            "batch.ingestion:TaskIngestor._journal_and_find_clashes",
            "refused_seqs -= await self._journaled(refused_seqs)",
            "pass",
        ),
    ),
    Mutant(
        "who leaves takes the task along",
        "test_runner.py -k goes_away",
        Change(
            "batch.submission:ExecutionSubmission.submit_task",
            "asyncio.shield(asyncio.ensure_future(self._accept_reserved(runner, task)))",
            "self._accept_reserved(runner, task)",
        ),
    ),
    Mutant(
        "what was not read is completed",
        "test_runner.py -k loads_leaves",
        Change(
            "batch.runner:ExecutionRunner._release",
            "self._started and (not self.active.open_tasks) and self.active.execution.input_closed and (status == 'paused')",
            "not self.active.open_tasks and self.active.execution.input_closed and (status == 'paused')",
        ),
    ),
    Mutant(
        "a pause is stopped as a task",
        "test_runner.py -k overdue",
        Change("batch.task_runner:TaskRunner._pause_for_budget", "attempt.end()", "pass"),
    ),
    Mutant(
        "who asks holds the budget",
        "test_runner.py -k dead_call",
        Change(
            "batch.task_runner:TaskRunner._handle_exception",
            "len(self._active.running) > 1",
            "self._active.running",
        ),
    ),
    Mutant(
        "what was spent before is free",
        "test_runner.py -k comes_later",
        Change(
            "batch.environment:budget_account",
            "float(execution.source.get('unbudgeted_usd', 0))",
            "0.0",
        ),
    ),
    Mutant(
        "what was lost has another name",
        "test_runner.py -k names_again",
        Change(
            "batch.task_runner:TaskRunner.requeue_interrupted",
            "row.dispatch_count = 1",
            "row.dispatch_count = 1\nrow.generation += 1",
        ),
    ),
    Mutant(
        "a rest is time of the batch",
        "test_runner.py -k rests",
        Change(
            "batch.runner:ExecutionRunner.resume", "self.active.progress.resume_clock()", "pass"
        ),
    ),
    Mutant(
        "a closing executor begins more",
        "test_runner.py -k closes",
        Change(
            "batch.executor:ParallelAgentExecutor.resume_execution",
            "self._registry.check_open()",
            "pass",
            only=(1,),
        ),
    ),
    Mutant(
        "zombies count as workers",
        "test_ingestion.py -k given_up",
        Change(
            "batch.worker_pool:WorkerPool.abandon", "self._workers.discard(attempt.worker)", "pass"
        ),
    ),
    Mutant(
        "approval is passed over",
        "test_ingestion.py -k its_approval",
        Change("batch.executor:_require_approval", "needs_approval(execution, settings)", "False"),
    ),
    Mutant(
        "a name is used twice in a call",
        "test_ingestion.py -k name_of_its_own",
        Change(
            "run.request:compute_request_key",
            "request_counts = request.run.context.progress.request_counts",
            "request_counts: dict[str, int] = {}",
        ),
    ),
    Mutant(
        "batches have no owner",
        "test_caller_rules.py -k batch",
        Change(
            "batch.journal.owned:OwnedJournal._permitted",
            "not self._may_use(await self._journal.get(execution_id))",
            "False",
        ),
    ),
    Mutant(
        "ids of batches are one namespace",
        "test_caller_rules.py -k batch",
        Change(
            "batch.journal.owned:OwnedJournal.qualified_id",
            "f'{quoted(self._principal.tenant)}.{name}'",
            "name",
        ),
    ),
    Mutant(
        "dead letters have no owner",
        "test_caller_rules.py -k letters",
        Change(
            "event_bus.owned_dead_letters:OwnedDeadLetters._may_use",
            "(letter.tenant or DEFAULT_TENANT) == self._principal.tenant and may_use(self._principal, letter.user)",
            "True or may_use(self._principal, letter.user)",
        ),
    ),
    Mutant(
        "recordings have no owner",
        "test_caller_rules.py -k recorded",
        Change(
            "replay.recording:_filter_owned",
            "run_event.tenant == tenant and may_use(principal, run_event.user_id or '')",
            "run_event.tenant == tenant",
        ),
    ),
    Mutant(
        "poison is for all callers",
        "test_caller_rules.py -k put_aside",
        Change("pool.process.poison_tasks:_key", "principal.tenant", "''"),
        Change("pool.process.poison_tasks:_key", "principal.id", "''"),
    ),
    Mutant(
        "anybody makes a fork",
        "test_caller_rules.py -k recorded",
        Change(
            "replay.runs:replay_run", "principal is not None and from_step is not None", "False"
        ),
    ),
    Mutant(
        "a batch names files",
        "test_caller_rules.py -k neither_files",
        Change("batch.caller_rules:CallerRules.check_agent", "is_path(name)", "False"),
    ),
    Mutant(
        "a batch runs any agent",
        "test_caller_rules.py -k neither_files",
        Change(
            "batch.caller_rules:CallerRules.check_agent",
            "self._factory.check_scopes(self._principal, 'run', template)",
            "pass",
        ),
    ),
    Mutant(
        "a batch gives paths",
        "test_caller_rules.py -k a_path_among",
        Change(
            "batch.caller_rules:CallerRules._check_inputs",
            "schema.get('format') == 'path'",
            "False",
        ),
    ),
    Mutant(
        "a line of any length is held",
        "test_sources.py -k too_long",
        Change("batch.sources:_BoundedLines.__next__", "len(line) <= MAX_LINE", "True"),
    ),
]
