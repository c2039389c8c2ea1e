"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant, TextChange

MUTANTS = [
    Mutant(
        "turns are not waited for",
        "test_processes.py -k 'hundred_turns and sqlite'",
        Change(
            "sessions.turns:Turns._acquired",
            "if lease is not None:\n    return lease",
            "return lease or Lease(thread, owner, 1)",
        ),
    ),
    Mutant(
        "an old token may write",
        "test_processes.py -k stands_still",
        Change(
            "checkpoints.backends.sqlite:SqliteRecords._check_writable",
            "guard.token != (token or 0)",
            "False",
        ),
    ),
    Mutant(
        "an old token may write to Redis",
        "test_processes.py -k stands_still",
        TextChange(
            "checkpoints.backends.redis_scripts", "token ~= (held[1] or '0') then", "false then"
        ),
    ),
    Mutant(
        "any head may be continued",
        "test_processes.py -k older_head",
        Change("checkpoints.backends.sqlite:SqliteRecords._save", "head != row.parent_id", "False"),
    ),
    Mutant(
        "a lost lease goes unnoticed",
        "test_processes.py -k lease_is_lost",
        Change("sessions.turns:Turns._renewed.renew", "holder.cancel()", "pass"),
    ),
    Mutant(
        "a cancelled wait keeps the lease",
        "test_processes.py -k cancelling_a_wait",
        Change(
            "sessions.turns:Turns._acquired", "asking.add_done_callback(self._give_back)", "pass"
        ),
    ),
    Mutant(
        "waiting is not bounded",
        "test_conversations.py -k wait_is_bounded",
        Change("sessions.turns:Turns.hold", "queue.users > self._max_waiting", "False"),
    ),
    Mutant(
        "the digest is not checked",
        "test_bytes.py -k flipped",
        Change(
            "checkpoints.seal:Seal.open",
            "not hmac.compare_digest(blob[_HEAD:_START], self._digest(payload, place))",
            "False",
        ),
    ),
    Mutant(
        "the place is not sealed",
        "test_bytes.py -k flipped",
        Change("checkpoints.seal:Seal._digest", "mac.update(place.encode())", "pass"),
    ),
    Mutant(
        "a key is not used",
        "test_bytes.py -k forging",
        Change("checkpoints.seal:Seal._digest", "self._key", "b''"),
    ),
    Mutant(
        "any type is read",
        "test_bytes.py -k 'one_by_one or run_or_imported'",
        Change(
            "checkpoints.codec:Codec._own",
            "if key not in self._allowed:\n    raise UnreadableBytes(f'the type {key} is not on the allow-list')",
            "if key not in self._allowed:\n    self._allowed[key] = None\nif False:\n    raise UnreadableBytes(f'the type {key} is not on the allow-list')",
        ),
    ),
    Mutant(
        "a quarantined session is written to",
        "test_bytes.py -k never_overwritten",
        Change(
            "checkpoints.backends.memory:MemoryRecords._writable",
            "found.quarantine",
            "False",
            only=(0,),
        ),
    ),
    Mutant(
        "pruning cuts delta channels",
        "test_checkpointers.py -k delta_channel",
        Change(
            "checkpoints.upkeep:_keep_with_history",
            "open_channels and row.parent_id is not None",
            "False",
        ),
    ),
    Mutant(
        "the hot copy is handed out itself",
        "test_conversations.py -k does_to_a_result",
        Change("checkpoints.stored_list:_Messages.copies", "self._copy", "self._shown"),
    ),
    Mutant(
        "edits in place are not seen",
        "test_attacks.py -k edited_in_place",
        Change(
            "checkpoints.stored_list:_Messages.start",
            "self._bytes is not None and list(map(type, part)) == self._classes and (_packed(part) == self._bytes) and (list(map(_extra_of, part)) == self._extras)",
            "self._bytes is not None and list(map(type, part)) == self._classes and (list(map(_extra_of, part)) == self._extras)",
        ),
    ),
    Mutant(
        "every step stores the whole list",
        "test_checkpointers.py -k stores_what_it_adds",
        Change("checkpoints.stored_list:StoredList.extended", "self._same_chunks(items)", "0"),
    ),
    Mutant(
        "nothing is repaired",
        "test_conversations.py -k open_call",
        Change(
            "orchestration.turn_recovery:session_input", "await repair(agent, config, turn)", "pass"
        ),
    ),
    Mutant(
        "repair takes the snapshot for what is saved",
        "test_processes.py -k 'killed_anywhere and sqlite-message'",
        Change("orchestration.turn_recovery:_left", "{'configurable': configurable}", "config"),
    ),
    Mutant(
        "what finished tools wrote beside messages is lost",
        "test_conversations.py -k finished_tools",
        Change(
            "orchestration.turn_recovery:_left",
            "[(name, value) for name, value in written if name != 'messages']",
            "[]",
        ),
    ),
    Mutant(
        "effects are not recorded",
        "test_conversations.py -k whose_end_is_not_known",
        Change(
            "run.idempotency:once",
            "turn is None or call_id is None or (tool.metadata or {}).get(IDEMPOTENT)",
            "True or (tool.metadata or {}).get(IDEMPOTENT)",
        ),
    ),
    Mutant(
        "a retry repeats an effect",
        "test_mishaps.py -k idle_timeout",
        Change("sessions.turn:Turn.begins", "self._own.clear()", "pass"),
    ),
    Mutant(
        "a running session is cleaned up",
        "test_mishaps.py -k cleaning_up",
        Change("sessions.manager:SessionManager.cleanup_expired", "lease is not None", "True"),
    ),
    Mutant(
        "one lost connection ends all",
        "test_mishaps.py -k one_lost",
        Change(
            "storage.redis_connection:RedisConnection._arun",
            "client.connection_pool.disconnect(inuse_connections=False)",
            "client.connection_pool.disconnect()",
        ),
    ),
    Mutant(
        "a stale turn writes effects",
        "test_mishaps.py -k stale_guard",
        Change(
            "checkpoints.backends.memory:MemoryRecords._tool_put",
            "self._writable(thread, guard)",
            "self._by_name[thread]",
        ),
    ),
    Mutant(
        "records are not compared before they change",
        "test_mishaps.py -k 'same_time and sqlite'",
        Change(
            "checkpoints.backends.sqlite_sessions:SqliteSessions._put_session",
            "'UPDATE sessions SET expires_at=?, data=?, gone=? WHERE key=? AND data=? AND gone=?'",
            "'UPDATE sessions SET expires_at=?, data=?, gone=? WHERE key=? OR data=? AND gone=?'",
        ),
    ),
    Mutant(
        "users of a tenant are not told apart",
        "test_conversations.py -k as_good_as_none",
        Change(
            "types:may_use",
            "principal is None or principal.id == owner or ALL_SESSIONS in principal.scopes",
            "True or ALL_SESSIONS in principal.scopes",
        ),
    ),
    Mutant(
        "tenants share their threads",
        "test_tenancy.py",
        Change(
            "checkpoints.thread_ids:thread_of",
            "f\"{checked_name(tenant, 'tenant')}:{checked_name(session_id)}\"",
            "f'all:{checked_name(session_id)}'",
        ),
    ),
    Mutant(
        "reserved keys are let through",
        "test_conversations.py -k may_not_set",
        Change("orchestration.subgraph_calls:refuse_reserved_keys", "key in RESERVED", "False"),
    ),
    Mutant(
        "secrets are stored",
        "test_conversations.py -k credentials",
        Change("checkpoints.blobs:storable_metadata", "not _is_credential(n)", "True"),
    ),
    Mutant(
        "a drain waits for the end",
        "test_conversations.py -k next_process",
        Change(
            "orchestration.call_tracker:Running.stop_all", "control.request_drain(reason)", "pass"
        ),
    ),
    Mutant(
        "a drain forgets who gets ready",
        "test_conversations.py -k gets_ready",
        Change(
            "orchestration.call_tracker:Running.control",
            "control.request_drain('shutdown')",
            "pass",
        ),
        Change(
            "orchestration.call_tracker:Running.control_by",
            "control.request_drain('shutdown')",
            "pass",
        ),
    ),
    Mutant(
        "an evicting server is accepted",
        "test_redis_faults.py -k evict",
        Change("storage.redis_server:check_server", "policy != 'noeviction'", "False"),
    ),
    Mutant(
        "a server without a log is accepted",
        "test_redis_faults.py -k append_only",
        Change(
            "storage.redis_server:check_server",
            "durable and (not persistence.get('aof_enabled'))",
            "False",
        ),
    ),
    Mutant(
        "a lost cancellation stays lost",
        "test_processes.py -k client_loses",
        Change("storage.redis_connection:RedisConnection.arun", "cancels.check()", "pass"),
    ),
    Mutant(
        "another agent goes on",
        "test_session_agent.py -k another_agent_does",
        Change("sessions.manager:SessionManager.turn", "check_agent(session, agent or {})", "pass"),
    ),
    Mutant(
        "an agent is built for anybody",
        "test_session_agent.py -k no_process",
        Change(
            "factory.agent_factory:AgentFactory.check_scopes",
            "check_scope(principal, scope)",
            "pass",
        ),
    ),
    Mutant(
        "an agent is built when nothing waits",
        "test_session_agent.py -k no_process",
        Change(
            "sessions.manager:SessionManager.resume_session",
            "session.status == 'idle' and (not await self._is_interrupted(session))",
            "False",
        ),
    ),
    Mutant(
        "a state is saved by anybody",
        "test_session_agent.py -k saved_state",
        Change(
            "sessions.history:SessionHistory.save_checkpoint",
            "check_scope(principal, scope)",
            "pass",
        ),
    ),
    Mutant(
        "labels are not quoted",
        "test_memory_store.py -k reaches_into",
        Change(
            "checkpoints.redis_store:_StoreOperations._name", "map(_quoted, namespace)", "namespace"
        ),
        Change("checkpoints.redis_store:_StoreOperations._name", "_quoted(key)", "key"),
    ),
    Mutant(
        "tenants share a memory",
        "test_memory_store.py -k each_tenant",
        Change(
            "checkpoints.tenant_store:_namespace_of_tenant",
            "'tenant ' + quoted(DEFAULT_TENANT if principal is None else principal.tenant).replace('.', '%2E')",
            "'tenant ' or quoted(DEFAULT_TENANT if principal is None else principal.tenant).replace('.', '%2E')",
        ),
    ),
    Mutant(
        "parts of two states are one",
        "test_spliced.py -k an_approval",
        Change("checkpoints.operations:CheckpointSteps.opened", "content[4:]", "False", only=(0,)),
    ),
    Mutant(
        "the checkpoint knows no agent",
        "test_spliced.py -k agent_that_asked",
        Change("orchestration.turn_recovery:_resumed", "asked_by != name", "False"),
    ),
    Mutant(
        "stored bytes of any shape are used",
        "test_shapes.py",
        Change("checkpoints.blobs:Blobs.open_as", "not has_shape(value)", "False"),
    ),
    Mutant(
        "bytes behind a value are ignored",
        "test_shapes.py -k bytes_behind",
        Change("checkpoints.codec:Codec.decode", "end != _MARK", "False"),
    ),
    Mutant(
        "a message of number -1 is the last class",
        "test_shapes.py -k no_class_has",
        Change(
            "checkpoints.message_rows:message_of",
            "number < 0 or not isinstance(content, (str, list)) or (not isinstance(kept, dict))",
            "not isinstance(content, (str, list)) or not isinstance(kept, dict)",
        ),
    ),
    Mutant(
        "metadata has tuples",
        "test_checkpointers.py -k metadata_is_json",
        Change("checkpoints.blobs:storable_metadata", "_listed(v)", "v"),
    ),
    Mutant(
        "a number is made into as many bytes",
        "test_shapes.py -k own_form",
        Change("checkpoints.plain_types:_only.read", "type(stored) is not kind", "False"),
    ),
    Mutant(
        "references to any numbers",
        "test_shapes.py -k cannot_be",
        Change(
            "checkpoints.chunk_refs:_parsed",
            "any((not 0 <= first <= last < MAX_NUMBER for first, last in numbers))",
            "False",
        ),
    ),
]
