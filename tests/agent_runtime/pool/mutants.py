"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant

MUTANTS = [
    Mutant(
        "what a worker started is left",
        "test_faults.py -k daemon",
        Change("pool.process.process_tree:kill_family", "doomed - {os.getpid()}", "set[int]()"),
    ),
    Mutant(
        "the group of a dead worker is left",
        "test_faults.py -k 'fork or daemon'",
        Change("pool.process.worker_process:WorkerProcess._ended", "self.kill()", "pass"),
    ),
    Mutant(
        "nobody looks for signs of life",
        "test_faults.py -k 'stop or loop'",
        Change(
            "pool.process.instance_worker:InstanceWorker.check_life",
            "now_s - self.process.link.last_heard_s > limit_s",
            "False",
        ),
    ),
    Mutant(
        "memory is not watched",
        "test_faults.py -k memory",
        Change(
            "pool.process.instance_worker:InstanceWorker.check_memory",
            "used_mb > limit_mb and self.instance.alive",
            "False",
        ),
    ),
    Mutant(
        "output is not counted",
        "test_faults.py -k flood",
        Change(
            "pool.process.instance_worker:InstanceWorker._on_output",
            "self._written > self._config.output_mb << 20",
            "False",
        ),
    ),
    Mutant(
        "a cancel does not kill",
        "test_mishaps.py -k nobody_hears",
        Change(
            "pool.process.instance_worker:InstanceWorker._stopped",
            "self.kill",
            "lambda _: None",
            only=(0,),
        ),
    ),
    Mutant(
        "the guard guards nothing",
        "test_instance_pool.py -k application_is_killed",
        Change(
            "pool.process.orphan_reaper:guard_main", "kill_family(pid, MARK, instance_id)", "pass"
        ),
    ),
    Mutant(
        "exceptions are pickled whole",
        "test_faults.py -k raise",
        Change(
            "remote.exceptions:_made",
            "error = found.__new__(found)\nerror.args = _loaded(failure.args, ())",
            "error = found(*_loaded(failure.args, ()))",
        ),
    ),
    Mutant(
        "a provider's error is a likeness",
        "test_parity.py -k comes_back",
        Change(
            "remote.exceptions:received", "failure.ref is not None and failure.ref in kept", "False"
        ),
    ),
    Mutant(
        "any thread's checkpoints are shown",
        "test_parity.py -k another_sessions",
        Change("remote.host_service:Service._own", "given.get('thread_id') != thread", "False"),
    ),
    Mutant(
        "any model may be asked for",
        "test_parity.py -k names_no",
        Change(
            "remote.host_resources:Desk.describe_model", "spec not in self._model_specs", "False"
        ),
    ),
    Mutant(
        "tool calls of a worker are free",
        "test_parity.py -k 'outside or again_and_again'",
        Change(
            "remote.host_service:Service._do_open_tool",
            "self._open_tools[number] = self._run.open_tool(name, args, call_id)",
            "pass",
        ),
    ),
    Mutant(
        "priorities are nothing",
        "test_instance_pool.py -k urgent",
        Change("pool.process.wait_queue:Waiting.add", "-priority", "0"),
    ),
    Mutant(
        "the queue has no bound",
        "test_instance_pool.py -k bounded",
        Change(
            "pool.process.scheduler:Roster.acquire",
            "len(self.waiting) >= self._config.queue",
            "False",
        ),
    ),
    Mutant(
        "the sum of memory has no bound",
        "test_instance_pool.py -k sum_of_memory",
        Change("pool.process.capacity:Room.within_pool", "total_mb is None", "True"),
    ),
    Mutant(
        "outdated instances serve",
        "test_instance_pool.py -k what_changed",
        Change("pool.process.scheduler:Roster._refresh", "each.version is not latest", "False"),
    ),
    Mutant(
        "a poisoned task runs on",
        "test_instance_pool.py -k put_aside",
        Change("pool.process.poison_tasks:Poison.killed", "kills < self._max_kills", "True"),
    ),
    Mutant(
        "an instance with a busy thread is used",
        "test_instance_pool.py -k left_in_a_thread",
        Change(
            "remote.job_client:JobRun._next",
            "bool(message[3].get('threads_left') or message[3].get('worn'))",
            "False and bool(message[3].get('threads_left') or message[3].get('worn'))",
        ),
    ),
    Mutant(
        "starts fail for ever in a loop",
        "test_instance_pool.py -k cannot_be_made",
        Change(
            "pool.process.start_backoff:Starts.failed",
            "None if times >= MAX_FAILURES else wait_s",
            "wait_s",
        ),
    ),
    Mutant(
        "every caller builds",
        "test_session_pool.py -k hundred",
        Change(
            "pool.warm.session_pool:AgentSessionPool._begin", "self._building.get(slot)", "None"
        ),
    ),
    Mutant(
        "fingerprints are not compared",
        "test_session_pool.py -k never_served_old",
        Change(
            "pool.warm.cache:Contexts.get",
            "context.fingerprint == fingerprint and (not self._expired(context))",
            "not self._expired(context)",
        ),
    ),
    Mutant(
        "who joined late is not checked",
        "test_session_pool.py -k joined_late",
        Change(
            "pool.warm.session_pool:AgentSessionPool.get_or_create",
            "now == context.fingerprint",
            "True",
        ),
    ),
    Mutant(
        "pins are nothing",
        "test_session_pool.py -k pins",
        Change("pool.warm.cache:Contexts.put", "not each.pins", "True"),
    ),
    Mutant(
        "code is not part of a key",
        "test_session_pool.py -k never_served_old",
        Change("registry:Registry.code_of", "(id(found), code)", "None"),
    ),
    Mutant(
        "secrets are not part of a key",
        "test_session_pool.py -k never_served_old",
        Change(
            "factory.cache_keys:AgentKeys._key",
            "tuple([secret_version(each.api_key) for each in spec.all_models()])",
            "()",
        ),
    ),
    Mutant(
        "a cancelled waiter is served",
        "test_mishaps.py -k cancels_in_the_queue",
        Change(
            "pool.process.wait_queue:Waiting._top",
            "not heap[0].there or heap[0].given.done()",
            "not heap[0].there",
        ),
    ),
    Mutant(
        "a task that failed here runs on there",
        "test_mishaps.py -k what_one_call",
        Change(
            "pool.process.instance_worker:InstanceWorker._answer",
            "await self._stopped(job)",
            "pass",
        ),
    ),
    Mutant(
        "closing forgets those that wait",
        "test_mishaps.py -k closing_tells",
        Change("pool.process.scheduler:Roster.close", "self.waiting.everybody()", "()"),
    ),
    Mutant(
        "memory makes no room",
        "test_mishaps.py -k by_memory",
        Change(
            "pool.process.scheduler:Roster._evict_for",
            "self._room.within_pool(agent)",
            "len(self.workers) < self._config.size",
        ),
    ),
    Mutant(
        "older versions are not drained",
        "test_mishaps.py -k older_versions",
        Change(
            "pool.process.agent_versions:Catalog.executors",
            "[*self._versions.values(), *self._older]",
            "[*self._versions.values()]",
        ),
    ),
    Mutant(
        "the guard hears late",
        "test_mishaps.py -k being_made",
        Change("pool.process.instance_worker:InstanceWorker.start", "self._on_begin(self)", "pass"),
    ),
    Mutant(
        "bytes are not counted",
        "test_mishaps.py -k by_bytes",
        Change(
            "remote.job_client:JobRun.take",
            "len(self._inbox) > MAX_INBOX or self._bytes > MAX_INBOX_BYTES",
            "len(self._inbox) > MAX_INBOX",
        ),
    ),
    Mutant(
        "what is left running goes on",
        "test_mishaps.py -k what_one_call",
        Change("pool.process.worker:Worker._run", "await self._left_running()", "False"),
    ),
    Mutant(
        "overrides are not part of a key",
        "test_session_pool.py -k overrides_bring",
        Change(
            "pool.warm.session_pool:AgentSessionPool._kept_or_building",
            "self._files.get(source, overrides)",
            "self._files.get(source)",
        ),
    ),
    Mutant(
        "made tools are shared",
        "test_session_pool.py -k never_shared",
        Change(
            "registry:Registry.makes_tools",
            "inspect.isclass(found) or getattr(found, '_makes_tool', False)",
            "False",
        ),
    ),
    Mutant(
        "a grace may be longer than its task",
        "test_instance_pool.py -k configurations_are_checked",
        Change("pool.config:check_grace", "settings.grace > limit_s", "False"),
    ),
]
