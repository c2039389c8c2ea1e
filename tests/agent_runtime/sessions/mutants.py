"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant, TextChange

MUTANTS = [
    Mutant(
        "turns are not waited for",
        "test_turns.py -k 'hundred_turns and sqlite'",
        Change(
            "sessions.turns:Turns._acquire_lease",
            "if lease is not None:\n    return lease",
            "return lease or Lease(thread, owner, 1)",
        ),
    ),
    Mutant(
        "an old token may write",
        "test_turns.py -k stands_still",
        Change(
            "checkpoints.backends.sqlite:SqliteCheckpointBackend._check_writable",
            "fencing_token.value != (token or 0)",
            "False",
        ),
    ),
    Mutant(
        "an old token may write to Redis",
        "test_turns.py -k stands_still",
        TextChange(
            "checkpoints.backends.redis_scripts", "token ~= (held[1] or '0') then", "false then"
        ),
    ),
    Mutant(
        "any head may be continued",
        "test_turns.py -k older_head",
        Change(
            "checkpoints.backends.sqlite:SqliteCheckpointBackend.save",
            "head != row.parent_id",
            "False",
        ),
    ),
    Mutant(
        "a lost lease goes unnoticed",
        "test_turns.py -k lease_is_lost",
        Change("sessions.turns:Turns._auto_renew.renew", "holder.cancel()", "pass"),
    ),
    Mutant(
        "a cancelled wait keeps the lease",
        "test_turns.py -k cancelling_a_wait",
        Change(
            "sessions.turns:Turns._acquire_lease",
            "acquisition.add_done_callback(self._release_if_granted)",
            "pass",
        ),
    ),
    Mutant(
        "waiting is not bounded",
        "test_manager.py -k wait_is_bounded",
        Change("sessions.turns:Turns.acquire", "queue.user_count > self._max_waiting", "False"),
    ),
    Mutant(
        "the digest is not checked",
        "../checkpoints/test_codec.py -k flipped",
        Change(
            "checkpoints.seal:Seal.unseal",
            "not hmac.compare_digest(blob[_HEAD_BYTES:_PAYLOAD_START], self._digest(payload, location))",
            "False",
        ),
    ),
    Mutant(
        "the place is not sealed",
        "../checkpoints/test_codec.py -k flipped",
        Change("checkpoints.seal:Seal._digest", "mac.update(location.encode())", "pass"),
    ),
    Mutant(
        "a key is not used",
        "../checkpoints/test_codec.py -k forging",
        Change("checkpoints.seal:Seal._digest", "self._key", "b''"),
    ),
    Mutant(
        "any type is read",
        "../checkpoints/test_codec.py -k 'one_by_one or run_or_imported'",
        Change(
            "checkpoints.codec:Codec._decode_application_type",
            "if key not in self._allowed:\n    raise UnreadableBytes(f'the type {key} is not on the allow-list')",
            "if key not in self._allowed:\n    self._allowed[key] = None\nif False:\n    raise UnreadableBytes(f'the type {key} is not on the allow-list')",
        ),
    ),
    Mutant(
        "a quarantined session is written to",
        "../checkpoints/test_codec.py -k never_overwritten",
        Change(
            "checkpoints.backends.memory:MemoryCheckpointBackend._writable_thread",
            "thread_data.quarantine",
            "False",
            only=(0,),
        ),
    ),
    Mutant(
        "pruning cuts delta channels",
        "../checkpoints/test_checkpointer.py -k delta_channel",
        Change(
            "checkpoints.upkeep:_retain_with_history",
            "open_channels and row.parent_id is not None",
            "False",
        ),
    ),
    Mutant(
        "the hot copy is handed out itself",
        "test_manager.py -k does_to_a_result",
        Change(
            "checkpoints.stored_list:_MessageColumns.copy_all",
            "self._copy_message",
            "self._uncopied_message",
        ),
    ),
    Mutant(
        "edits in place are not seen",
        "../scenarios/test_session_attacks.py -k edited_in_place",
        Change(
            "checkpoints.stored_list:_MessageColumns.is_prefix_of",
            "self._bytes is not None and list(map(type, part)) == self._classes and (_pack_fields(part) == self._bytes) and (list(map(_extra_of, part)) == self._extras)",
            "self._bytes is not None and list(map(type, part)) == self._classes and (list(map(_extra_of, part)) == self._extras)",
        ),
    ),
    Mutant(
        "every step stores the whole list",
        "../checkpoints/test_checkpointer.py -k stores_what_it_adds",
        Change(
            "checkpoints.stored_list:StoredList.with_items",
            "self._count_unchanged_chunks(items)",
            "0",
        ),
    ),
    Mutant(
        "nothing is repaired",
        "test_manager.py -k open_call",
        Change(
            "orchestration.turn_recovery:prepare_session_input",
            "await complete_dangling_tool_calls(agent, config, turn)",
            "pass",
        ),
    ),
    Mutant(
        "repair takes the snapshot for what is saved",
        "test_turns.py -k 'killed_anywhere and message-sqlite'",
        Change(
            "orchestration.turn_recovery:_load_unfinished",
            "{'configurable': configurable}",
            "config",
        ),
    ),
    Mutant(
        "what finished tools wrote beside messages is lost",
        "test_manager.py -k finished_tools",
        Change(
            "orchestration.turn_recovery:_load_unfinished",
            "[(name, value) for name, value in channel_writes if name != 'messages']",
            "[]",
        ),
    ),
    Mutant(
        "effects are not recorded",
        "test_manager.py -k whose_end_is_not_known",
        Change(
            "run.idempotency:run_once",
            "turn is None or call_id is None or (tool.metadata or {}).get(IDEMPOTENT)",
            "True or (tool.metadata or {}).get(IDEMPOTENT)",
        ),
    ),
    Mutant(
        "a retry repeats an effect",
        "../scenarios/test_session_faults.py -k idle_timeout",
        Change("sessions.turn:Turn.mark_running", "self._started_keys.clear()", "pass"),
    ),
    Mutant(
        "a running session is cleaned up",
        "../scenarios/test_session_faults.py -k cleaning_up",
        Change("sessions.manager:SessionManager.cleanup_expired", "lease is not None", "True"),
    ),
    Mutant(
        "one lost connection ends all",
        "../scenarios/test_session_faults.py -k one_lost",
        Change(
            "storage.redis_connection:RedisConnection._arun",
            "client.connection_pool.disconnect(inuse_connections=False)",
            "client.connection_pool.disconnect()",
        ),
    ),
    Mutant(
        "a stale turn writes effects",
        "../scenarios/test_session_faults.py -k stale_guard",
        Change(
            "checkpoints.backends.memory:MemoryCheckpointBackend.record_tool_result",
            "self._writable_thread(thread, fencing_token)",
            "self._threads_by_name[thread]",
        ),
    ),
    Mutant(
        "records are not compared before they change",
        "../scenarios/test_session_faults.py -k 'same_time and sqlite'",
        Change(
            "checkpoints.backends.sqlite_session_table:SqliteSessionTable.put",
            "'UPDATE sessions SET expires_at=?, data=?, gone=? WHERE key=? AND data=? AND gone=?'",
            '"""UPDATE sessions SET expires_at=?, data=?, gone=? WHERE key=? OR data=? AND gone=?"""',
        ),
    ),
    Mutant(
        "users of a tenant are not told apart",
        "test_manager.py -k as_good_as_none",
        Change(
            "types:may_use",
            "principal is None or principal.id == owner or ALL_SESSIONS in principal.scopes",
            "True or ALL_SESSIONS in principal.scopes",
        ),
    ),
    Mutant(
        "tenants share their threads",
        "../scenarios/test_session_tenancy.py",
        Change(
            "checkpoints.thread_ids:thread_of",
            "f\"{checked_name(tenant, 'tenant')}:{checked_name(session_id)}\"",
            "f'all:{checked_name(session_id)}'",
        ),
    ),
    Mutant(
        "reserved keys are let through",
        "test_manager.py -k may_not_set",
        Change(
            "orchestration.subgraph_calls:refuse_reserved_keys", "key in RESERVED_KEYS", "False"
        ),
    ),
    Mutant(
        "secrets are stored",
        "test_manager.py -k credentials",
        Change("checkpoints.blobs:storable_metadata", "not _is_credential(n)", "True"),
    ),
    Mutant(
        "a drain waits for the end",
        "test_manager.py -k next_process",
        Change(
            "orchestration.call_tracker:CallTracker.request_drain_all",
            "control.request_drain(reason)",
            "pass",
        ),
    ),
    Mutant(
        "a drain forgets who gets ready",
        "test_manager.py -k gets_ready",
        Change(
            "orchestration.call_tracker:CallTracker.register_run",
            "control.request_drain('shutdown')",
            "pass",
        ),
        Change(
            "orchestration.call_tracker:CallTracker.register_control",
            "control.request_drain('shutdown')",
            "pass",
        ),
    ),
    Mutant(
        "an evicting server is accepted",
        "../storage/test_redis_server.py -k evict",
        Change("storage.redis_server:check_server", "policy != 'noeviction'", "False"),
    ),
    Mutant(
        "a server without a log is accepted",
        "../storage/test_redis_server.py -k append_only",
        Change(
            "storage.redis_server:check_server",
            "durable and (not persistence.get('aof_enabled'))",
            "False",
        ),
    ),
    Mutant(
        "a lost cancellation stays lost",
        "test_turns.py -k client_loses",
        Change("storage.redis_connection:RedisConnection.arun", "cancels.check()", "pass"),
    ),
    Mutant(
        "another agent goes on",
        "test_agent_record.py -k another_agent_does",
        Change("sessions.manager:SessionManager.turn", "check_agent(session, agent or {})", "pass"),
    ),
    Mutant(
        "an agent is built for anybody",
        "test_agent_record.py -k no_process",
        Change(
            "factory.agent_factory:AgentFactory.check_scopes",
            "check_scope(principal, scope)",
            "pass",
        ),
    ),
    Mutant(
        "an agent is built when nothing waits",
        "test_agent_record.py -k no_process",
        Change(
            "sessions.manager:SessionManager.resume_session",
            "session.status == 'idle' and (not await self.checkpoints.is_interrupted(session))",
            "False",
        ),
    ),
    Mutant(
        "a state is saved by anybody",
        "test_agent_record.py -k saved_state",
        Change(
            "sessions.checkpoints:SessionCheckpoints.save",
            "check_scope(principal, scope)",
            "pass",
        ),
    ),
    Mutant(
        "labels are not quoted",
        "../checkpoints/test_redis_store.py -k reaches_into",
        Change(
            "checkpoints.redis_store:_StoreOperations._name",
            "map(_escape_label, namespace)",
            "namespace",
        ),
        Change("checkpoints.redis_store:_StoreOperations._name", "_escape_label(key)", "key"),
    ),
    Mutant(
        "tenants share a memory",
        "../checkpoints/test_redis_store.py -k each_tenant",
        Change(
            "checkpoints.tenant_store:_namespace_of_tenant",
            "'tenant ' + quoted(DEFAULT_TENANT if principal is None else principal.tenant).replace('.', '%2E')",
            "'tenant ' or quoted(DEFAULT_TENANT if principal is None else principal.tenant).replace('.', '%2E')",
        ),
    ),
    Mutant(
        "parts of two states are one",
        "../scenarios/test_spliced_sessions.py -k an_approval",
        Change(
            "checkpoints.operations:CheckpointOperations.decode_checkpoint",
            "content[4:]",
            "False",
            only=(0,),
        ),
    ),
    Mutant(
        "the checkpoint knows no agent",
        "../scenarios/test_spliced_sessions.py -k agent_that_asked",
        Change("orchestration.turn_recovery:_resume_input", "expected_agent != name", "False"),
    ),
    Mutant(
        "stored bytes of any shape are used",
        "../checkpoints/test_shapes.py",
        Change("checkpoints.blobs:Blobs.decode_as", "not has_shape(value)", "False"),
    ),
    Mutant(
        "bytes behind a value are ignored",
        "../checkpoints/test_shapes.py -k bytes_behind",
        Change("checkpoints.codec:Codec.decode", "end != _END_MARKER", "False"),
    ),
    Mutant(
        "a message of number -1 is the last class",
        "../checkpoints/test_shapes.py -k no_class_has",
        Change(
            "checkpoints.message_rows:message_from_row",
            "number < 0 or not isinstance(content, (str, list)) or (not isinstance(changed_fields, dict))",
            "not isinstance(content, (str, list)) or not isinstance(changed_fields, dict)",
        ),
    ),
    Mutant(
        "metadata has tuples",
        "../checkpoints/test_checkpointer.py -k metadata_is_json",
        Change("checkpoints.blobs:storable_metadata", "_tuples_to_lists(v)", "v"),
    ),
    Mutant(
        "a number is made into as many bytes",
        "../checkpoints/test_shapes.py -k own_form",
        Change(
            "checkpoints.plain_types:_requires_type.read",
            "type(stored) is not stored_type",
            "False",
        ),
    ),
    Mutant(
        "references to any numbers",
        "../checkpoints/test_shapes.py -k cannot_be",
        Change(
            "checkpoints.chunk_refs:_parse",
            "any((not 0 <= first <= last < MAX_NUMBER for first, last in channel_ranges))",
            "False",
        ),
    ),
]
