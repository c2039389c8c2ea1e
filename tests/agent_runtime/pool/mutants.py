"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant

MUTANTS = [
    Mutant(
        "what a worker started is left",
        "process/test_process_tree.py -k daemon",
        Change(
            "pool.process.process_tree:kill_process_tree", "targets - {os.getpid()}", "set[int]()"
        ),
    ),
    Mutant(
        "the group of a dead worker is left",
        "process/test_process_tree.py -k 'fork or daemon'",
        Change("pool.process.worker_process:WorkerProcess._on_sentinel", "self.kill()", "pass"),
    ),
    Mutant(
        "nobody looks for signs of life",
        "process/test_process_tree.py -k 'stop or loop'",
        Change(
            "pool.process.instance_worker:InstanceWorker.check_heartbeat",
            "now_s - self.process.link.last_received_time > limit_s",
            "False",
        ),
    ),
    Mutant(
        "memory is not watched",
        "process/test_process_tree.py -k memory",
        Change(
            "pool.process.instance_worker:InstanceWorker.check_memory",
            "used_mb > limit_mb and self.instance.alive",
            "False",
        ),
    ),
    Mutant(
        "output is not counted",
        "process/test_process_tree.py -k flood",
        Change(
            "pool.process.instance_worker:InstanceWorker._on_output",
            "self._output_bytes > self._config.output_mb << 20",
            "False",
        ),
    ),
    Mutant(
        "a cancel does not kill",
        "process/test_instance_pool.py -k nobody_hears",
        Change(
            "pool.process.instance_worker:InstanceWorker._stop_job",
            "self.kill",
            "lambda _: None",
            only=(0,),
        ),
    ),
    Mutant(
        "the guard guards nothing",
        "process/test_scheduler.py -k application_is_killed",
        Change(
            "pool.process.orphan_reaper:reaper_main",
            "kill_process_tree(pid, INSTANCE_VARIABLE, instance_id)",
            "pass",
        ),
    ),
    Mutant(
        "exceptions are pickled whole",
        "process/test_process_tree.py -k raise",
        Change(
            "remote.exceptions:_rebuild",
            "error = exception_class.__new__(exception_class)\nerror.args = _try_loads(failure.args, ())",
            "error = exception_class(*_try_loads(failure.args, ()))",
        ),
    ),
    Mutant(
        "a provider's error is a likeness",
        "../scenarios/test_pool_parity.py -k comes_back",
        Change(
            "remote.exceptions:deserialize_exception",
            "failure.ref is not None and failure.ref in raised_errors",
            "False",
        ),
    ),
    Mutant(
        "any thread's checkpoints are shown",
        "../scenarios/test_pool_parity.py -k another_sessions",
        Change(
            "remote.host_service:HostService._with_fencing_token",
            "configurable.get('thread_id') != thread_id",
            "False",
        ),
    ),
    Mutant(
        "any model may be asked for",
        "../scenarios/test_pool_parity.py -k names_no",
        Change(
            "remote.host_resources:HostResources.describe_model",
            "spec not in self._model_specs",
            "False",
        ),
    ),
    Mutant(
        "tool calls of a worker are free",
        "../scenarios/test_pool_parity.py -k 'outside or again_and_again'",
        Change(
            "remote.host_service:HostService._do_open_tool",
            "self._open_tools[number] = self._run.start_tool_call(name, args, call_id)",
            "pass",
        ),
    ),
    Mutant(
        "priorities are nothing",
        "process/test_scheduler.py -k urgent",
        Change("pool.process.wait_queue:WaitQueue.add", "-priority", "0"),
    ),
    Mutant(
        "the queue has no bound",
        "process/test_scheduler.py -k bounded",
        Change(
            "pool.process.scheduler:InstanceScheduler.acquire",
            "len(self.wait_queue) >= self._config.queue",
            "False",
        ),
    ),
    Mutant(
        "the sum of memory has no bound",
        "process/test_scheduler.py -k sum_of_memory",
        Change("pool.process.capacity:Capacity.fits_pool", "total_mb is None", "True"),
    ),
    Mutant(
        "outdated instances serve",
        "process/test_scheduler.py -k what_changed",
        Change(
            "pool.process.scheduler:InstanceScheduler._retire_outdated",
            "idle_worker.version is not latest",
            "False",
        ),
    ),
    Mutant(
        "a poisoned task runs on",
        "process/test_scheduler.py -k put_aside",
        Change(
            "pool.process.poison_tasks:PoisonTaskTracker.record_kill",
            "kill_count < self._max_kills",
            "True",
        ),
    ),
    Mutant(
        "an instance with a busy thread is used",
        "process/test_scheduler.py -k left_in_a_thread",
        Change(
            "remote.job_client:JobClient._next_message",
            "bool(message[3].get('threads_left') or message[3].get('worn'))",
            "False and bool(message[3].get('threads_left') or message[3].get('worn'))",
        ),
    ),
    Mutant(
        "starts fail for ever in a loop",
        "process/test_scheduler.py -k cannot_be_made",
        Change(
            "pool.process.start_backoff:StartLimiter.record_failure",
            "None if failure_count >= MAX_FAILURES else wait_s",
            "wait_s",
        ),
    ),
    Mutant(
        "every caller builds",
        "warm/test_session_pool.py -k hundred",
        Change(
            "pool.warm.session_pool:AgentSessionPool._start_build",
            "self._builds.get(build_key)",
            "None",
        ),
    ),
    Mutant(
        "fingerprints are not compared",
        "warm/test_session_pool.py -k never_served_old",
        Change(
            "pool.warm.cache:WarmCache.get",
            "context.fingerprint == fingerprint and (not self._expired(context))",
            "not self._expired(context)",
        ),
    ),
    Mutant(
        "who joined late is not checked",
        "warm/test_session_pool.py -k joined_late",
        Change(
            "pool.warm.session_pool:AgentSessionPool.get_or_create",
            "current_fingerprint == context.fingerprint",
            "True",
        ),
    ),
    Mutant(
        "pins are nothing",
        "warm/test_session_pool.py -k pins",
        Change("pool.warm.cache:WarmCache.put", "not cached_context.pins", "True"),
    ),
    Mutant(
        "code is not part of a key",
        "warm/test_session_pool.py -k never_served_old",
        Change("registry:Registry.tool_fingerprint", "(id(component), code)", "None"),
    ),
    Mutant(
        "secrets are not part of a key",
        "warm/test_session_pool.py -k never_served_old",
        Change(
            "factory.cache_keys:AgentCacheKeys._template_key",
            "tuple([secret_digest(model.api_key) for model in spec.all_models()])",
            "()",
        ),
    ),
    Mutant(
        "a cancelled waiter is served",
        "process/test_instance_pool.py -k cancels_in_the_queue",
        Change(
            "pool.process.wait_queue:WaitQueue._peek_queue",
            "not heap[0].active or heap[0].future.done()",
            "not heap[0].active",
        ),
    ),
    Mutant(
        "a task that failed here runs on there",
        "process/test_instance_pool.py -k what_one_call",
        Change(
            "pool.process.instance_worker:InstanceWorker._run_job",
            "await self._stop_job(job)",
            "pass",
        ),
    ),
    Mutant(
        "closing forgets those that wait",
        "process/test_instance_pool.py -k closing_tells",
        Change("pool.process.scheduler:InstanceScheduler.close", "self.wait_queue.all()", "()"),
    ),
    Mutant(
        "memory makes no room",
        "process/test_instance_pool.py -k by_memory",
        Change(
            "pool.process.scheduler:InstanceScheduler._evict_idle_for",
            "self._capacity.fits_pool(agent)",
            "len(self.workers) < self._config.size",
        ),
    ),
    Mutant(
        "older versions are not drained",
        "process/test_instance_pool.py -k older_versions",
        Change(
            "pool.process.agent_versions:AgentVersions.executors",
            "[*self._versions.values(), *self._superseded]",
            "[*self._versions.values()]",
        ),
    ),
    Mutant(
        "the guard hears late",
        "process/test_instance_pool.py -k being_made",
        Change("pool.process.instance_worker:InstanceWorker.start", "self._on_start(self)", "pass"),
    ),
    Mutant(
        "bytes are not counted",
        "process/test_instance_pool.py -k by_bytes",
        Change(
            "remote.job_client:JobClient.on_message",
            "len(self._inbox) > MAX_INBOX or self._inbox_bytes > MAX_INBOX_BYTES",
            "len(self._inbox) > MAX_INBOX",
        ),
    ),
    Mutant(
        "what is left running goes on",
        "process/test_instance_pool.py -k what_one_call",
        Change("pool.process.worker:Worker._run_job", "await self._cancel_stray_tasks()", "False"),
    ),
    Mutant(
        "overrides are not part of a key",
        "warm/test_session_pool.py -k overrides_bring",
        Change(
            "pool.warm.session_pool:AgentSessionPool._cached_or_building",
            "self._files.get(source, overrides)",
            "self._files.get(source)",
        ),
    ),
    Mutant(
        "made tools are shared",
        "warm/test_session_pool.py -k never_shared",
        Change(
            "registry:Registry.is_tool_factory",
            "inspect.isclass(component) or getattr(component, '_makes_tool', False)",
            "False",
        ),
    ),
    Mutant(
        "a grace may be longer than its task",
        "process/test_scheduler.py -k configurations_are_checked",
        Change("pool.config:check_grace", "settings.grace > limit_s", "False"),
    ),
]
