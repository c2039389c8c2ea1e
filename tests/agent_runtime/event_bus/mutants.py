"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant, TextChange

MUTANTS = [
    Mutant(
        "bus grows without bound",
        "test_bus.py -k says_how_many",
        Change(
            "event_bus.subscription:Subscription.__init__",
            "deque(maxlen=buffer if policy == 'drop_oldest' else None)",
            "deque()",
        ),
    ),
    Mutant(
        "acknowledged before it was handled",
        "../scenarios/test_durable_consumers.py -k sqlite",
        Change(
            "event_bus.consumer:EventConsumer._deliver",
            "try:\n    name = _event_name(event)\n    content_key = f'{name} {_content_digest(event)}'\n    if await self._retry_forever(lambda: self._deduplication.contains(self.name, name)):\n        self.duplicates += 1\n        if not await self._retry_forever(lambda: self._deduplication.contains(self.name, content_key)):\n            self._publish_conflict(event)\n    else:\n        if (letter := (await self._handle_with_retries(event))) is not None:\n            await self._retry_forever(lambda: add_shielded(self.dead_letters, letter))\n            self._publish_dead_letter(event, letter)\n        await self._retry_forever(lambda: self._deduplication.add(self.name, content_key))\n        await self._retry_forever(lambda: self._deduplication.add(self.name, name))\nexcept _Stopping:\n    return",
            "await self._acknowledge(delivery)\ntry:\n    name = _event_name(event)\n    content_key = f'{name} {_content_digest(event)}'\n    if await self._retry_forever(lambda: self._deduplication.contains(self.name, name)):\n        self.duplicates += 1\n        if not await self._retry_forever(lambda: self._deduplication.contains(self.name, content_key)):\n            self._publish_conflict(event)\n    else:\n        if (letter := (await self._handle_with_retries(event))) is not None:\n            await self._retry_forever(lambda: add_shielded(self.dead_letters, letter))\n            self._publish_dead_letter(event, letter)\n        await self._retry_forever(lambda: self._deduplication.add(self.name, content_key))\n        await self._retry_forever(lambda: self._deduplication.add(self.name, name))\nexcept _Stopping:\n    return",
        ),
    ),
    Mutant(
        "acknowledged before it was handled, behind a proxy",
        "../scenarios/test_durable_consumers.py -k redis",
        Change(
            "event_bus.consumer:EventConsumer._deliver",
            "try:\n    name = _event_name(event)\n    content_key = f'{name} {_content_digest(event)}'\n    if await self._retry_forever(lambda: self._deduplication.contains(self.name, name)):\n        self.duplicates += 1\n        if not await self._retry_forever(lambda: self._deduplication.contains(self.name, content_key)):\n            self._publish_conflict(event)\n    else:\n        if (letter := (await self._handle_with_retries(event))) is not None:\n            await self._retry_forever(lambda: add_shielded(self.dead_letters, letter))\n            self._publish_dead_letter(event, letter)\n        await self._retry_forever(lambda: self._deduplication.add(self.name, content_key))\n        await self._retry_forever(lambda: self._deduplication.add(self.name, name))\nexcept _Stopping:\n    return",
            "await self._acknowledge(delivery)\ntry:\n    name = _event_name(event)\n    content_key = f'{name} {_content_digest(event)}'\n    if await self._retry_forever(lambda: self._deduplication.contains(self.name, name)):\n        self.duplicates += 1\n        if not await self._retry_forever(lambda: self._deduplication.contains(self.name, content_key)):\n            self._publish_conflict(event)\n    else:\n        if (letter := (await self._handle_with_retries(event))) is not None:\n            await self._retry_forever(lambda: add_shielded(self.dead_letters, letter))\n            self._publish_dead_letter(event, letter)\n        await self._retry_forever(lambda: self._deduplication.add(self.name, content_key))\n        await self._retry_forever(lambda: self._deduplication.add(self.name, name))\nexcept _Stopping:\n    return",
        ),
    ),
    Mutant(
        "a failed event is acknowledged without a letter",
        "test_consumer.py -k put_aside",
        Change(
            "event_bus.consumer:EventConsumer._deliver",
            "await self._retry_forever(lambda: add_shielded(self.dead_letters, letter))",
            "pass",
        ),
    ),
    Mutant(
        "a stream does not wait for its retries",
        "test_consumer.py -k 'tried_again or each_stream'",
        Change(
            "event_bus.consumer:EventConsumer._dispatch",
            "stream in self._pending_by_stream",
            "False",
        ),
    ),
    Mutant(
        "known ids are handled again",
        "test_consumer.py -k not_handled_again",
        Change(
            "event_bus.consumer:EventConsumer._deliver",
            "await self._retry_forever(lambda: self._deduplication.contains(self.name, name))",
            "False",
        ),
    ),
    Mutant(
        "no cause is told",
        "test_consumer.py -k names_its_cause",
        Change("event_bus.consumer:EventConsumer._try_handler", "event.depth + 1", "event.depth"),
    ),
    Mutant(
        "drops are not told",
        "test_bus.py -k says_how_many",
        Change(
            "event_bus.subscription:Subscription._drain_buffer",
            "if missing:\n    self._insert_gap_event(missing)",
            "pass",
        ),
    ),
    Mutant(
        "a gap stands behind what survived it",
        "test_bus.py -k says_how_many",
        Change(
            "event_bus.subscription:Subscription._insert_gap_event",
            "self.policy == 'drop_oldest'",
            "False",
        ),
    ),
    Mutant(
        "no lock around publishing",
        "test_bus.py -k many_threads",
        Change("event_bus.bus:EventBus.publish", "lock.acquire()", "pass"),
    ),
    Mutant(
        "a wake-up from another thread is lost",
        "test_bus.py -k another_thread",
        Change(
            "event_bus.subscription:_wake_all",
            "loop.call_soon_threadsafe(_resolve, waiter)",
            "pass",
        ),
    ),
    Mutant(
        "a failing handler ends its subscription",
        "test_bus.py -k harms_no_other",
        Change("event_bus.subscription:Subscription._handle", "BaseException", "ZeroDivisionError"),
    ),
    Mutant(
        "a failing plain handler ends its thread",
        "test_bus.py -k harms_no_other",
        Change(
            "event_bus.subscription:Subscription._handle_in_thread",
            "BaseException",
            "ZeroDivisionError",
        ),
    ),
    Mutant(
        "what was retained is repeated",
        "test_bus.py -k comes_back",
        Change("event_bus.bus:EventBus._events_after", "event.seq > seq", "event.seq >= seq"),
    ),
    Mutant(
        "coming back too late is not told",
        "test_bus.py -k too_late",
        Change(
            "event_bus.bus:EventBus._events_after",
            "self._count_missed(event_filter, scoped_events, last, seq)",
            "0",
        ),
    ),
    Mutant(
        "two tenants share a stream",
        "test_bus.py -k counted_from_one",
        Change("event_bus.event:stream_of", "f'{_quote(tenant)}/{quoted_name}'", "quoted_name"),
    ),
    Mutant(
        "the slowest group is not asked",
        "brokers/test_sqlite.py -k trimming",
        Change(
            "event_bus.brokers.sqlite:SqliteBroker.trim",
            "cutoff[0] if lowest_committed_offset is None else min(cutoff[0], lowest_committed_offset)",
            "cutoff[0]",
        ),
    ),
    Mutant(
        "Redis trims what nobody has seen",
        "brokers/test_redis.py -k trimming",
        TextChange(
            "event_bus.brokers.redis",
            "if slowest and not (before(id, slowest) or (id == slowest and not pending)) then break end",
            "",
        ),
    ),
    Mutant(
        "two readers of one group",
        "brokers/test_group_reader.py -k redis",
        TextChange(
            "event_bus.brokers.redis", "if owner and owner ~= ARGV[1] then return 0 end", ""
        ),
    ),
    Mutant(
        "what is pending on Redis is not read first",
        "brokers/test_redis.py -k not_acknowledged",
        Change(
            "event_bus.brokers.redis:RedisBroker.fetch",
            "owner not in self._caught_up_owners",
            "False",
        ),
    ),
    Mutant(
        "a later acknowledgement covers an open event",
        "brokers/test_sqlite.py -k out_of_order",
        Change(
            "event_bus.brokers.group_reader:LeasedConsumer._committable_offset", "break", "continue"
        ),
    ),
    Mutant(
        "NATS forgets ids",
        "brokers/test_nats.py -k takes_an_event_once",
        Change(
            "event_bus.brokers.nats:NatsBroker.publish",
            "{'Nats-Msg-Id': _message_id_header(name)}",
            "{}",
        ),
    ),
    Mutant(
        "a relay gives up",
        "test_consumer.py -k relay_hands_over",
        Change(
            "event_bus.relay:Relay._send",
            "await asyncio.sleep(pause_s)",
            "return",
        ),
    ),
    Mutant(
        "secrets on the wire",
        "test_cloud_event.py -k secrets",
        Change(
            "event_bus.cloud_event:encode_event",
            "cloud_event = SECRETS.redact_json(cloud_event)",
            "pass",
        ),
    ),
    Mutant(
        "a flush of a dead relay succeeds",
        "test_consumer.py -k flush",
        Change(
            "event_bus.relay:Relay.flush", "self._finished_count < target_count", "False", only=(1,)
        ),
    ),
    Mutant(
        "one bad event ends the relay",
        "test_consumer.py -k cannot_be_sent",
        Change("event_bus.relay:Relay._send", "Exception", "ZeroDivisionError"),
    ),
    Mutant(
        "a handler's own cancellation is its consumer's",
        "test_consumer.py -k cancellation_of_its_own",
        Change(
            "event_bus.consumer:EventConsumer._try_handler",
            "task is None or task.cancelling()",
            "True",
        ),
    ),
    Mutant(
        "a failed acknowledgement is forgotten",
        "test_consumer.py -k sent_again",
        Change(
            "event_bus.brokers.group_reader:LeasedConsumer._run", "await self._commit()", "pass"
        ),
    ),
    Mutant(
        "what was fetched before a new beginning counts",
        "test_consumer.py -k lease_was_lost",
        Change(
            "event_bus.brokers.group_reader:LeasedConsumer._fetch",
            "self._epoch != fetch_epoch",
            "False",
        ),
    ),
    Mutant(
        "a batch is known before it is there",
        "brokers/test_redis.py -k only_when_it_is_there",
        TextChange(
            "event_bus.brokers.redis",
            "if redis.call('EXISTS', KEYS[2]) == 0 then",
            "if redis.call('SET', KEYS[2], '1', 'NX') then",
        ),
    ),
    Mutant(
        "a client's lost cancellation is lost",
        "brokers/test_nats.py -k client_loses",
        Change("event_bus.brokers.nats:NatsBroker._client", "cancel_watch.check()", "pass"),
    ),
    Mutant(
        "a file is opened beside its connections",
        "brokers/test_sqlite.py -k several_connections",
        Change("storage.sqlite_file:_create_private_file", "os.O_CREAT | os.O_EXCL", "os.O_CREAT"),
    ),
    Mutant(
        "a subscription crosses tenants",
        "test_bus.py -k 'listened_to_alone or theirs'",
        Change(
            "event_bus.group:Filter.matches_scope",
            "(self.session_id is None or event.session_id == self.session_id) and (self.run_id is None or event.run_id == self.run_id) and (self.tenant is None or self._tenant_of(event) == self.tenant) and (self.user_id is None or event.user_id == self.user_id)",
            "(self.session_id is None or event.session_id == self.session_id) and (self.run_id is None or event.run_id == self.run_id) and (self.user_id is None or event.user_id == self.user_id)",
        ),
    ),
    Mutant(
        "a subscription crosses users",
        "test_bus.py -k theirs",
        Change(
            "event_bus.group:Filter.matches_scope",
            "(self.session_id is None or event.session_id == self.session_id) and (self.run_id is None or event.run_id == self.run_id) and (self.tenant is None or self._tenant_of(event) == self.tenant) and (self.user_id is None or event.user_id == self.user_id)",
            "(self.session_id is None or event.session_id == self.session_id) and (self.run_id is None or event.run_id == self.run_id) and (self.tenant is None or self._tenant_of(event) == self.tenant)",
        ),
    ),
    Mutant(
        "ids of all tenants are one",
        "test_event_seal.py -k hide_nothing",
        Change(
            "event_bus.consumer:_event_name",
            "f\"{tenant}/{quote(event.source, safe='')}/{event.id}\"",
            "event.id",
        ),
    ),
    Mutant(
        "a conflict is not told",
        "test_event_seal.py -k other_contents",
        Change(
            "event_bus.consumer:EventConsumer._deliver", "self._publish_conflict(event)", "pass"
        ),
    ),
    Mutant(
        "seals are not looked at",
        "test_event_seal.py -k seal",
        Change("event_bus.cloud_event:from_cloud_event", "seal.check(content)", "pass"),
    ),
    Mutant(
        "a seal is for any log",
        "test_event_seal.py -k every_attribute",
        Change("event_bus.event_seal:EventSeal._mac", "[self._log, attributes]", "[attributes]"),
    ),
    Mutant(
        "what names no tenant is the default's",
        "test_bus.py -k no_tenant",
        Change(
            "event_bus.group:Filter._tenant_of",
            "event.tenant if self.requires_tenant else event.tenant or DEFAULT_TENANT",
            "event.tenant or DEFAULT_TENANT",
        ),
    ),
    Mutant(
        "a place of another count is taken for one of this",
        "test_bus.py -k number_above",
        Change("event_bus.bus:EventBus._events_after", "seq is None or seq > last", "seq is None"),
    ),
    Mutant(
        "an id of another bus is read by its number",
        "test_bus.py -k restarted_process",
        Change(
            "event_bus.bus:EventBus._resolve_seq",
            "any((id_prefix == f'{s}:{stream}' for s in sources for stream in streams))",
            "True or any((id_prefix == f'{s}:{stream}' for s in sources for stream in streams))",
        ),
    ),
    Mutant(
        "a missing number is not counted",
        "test_consumer.py -k missing_in_a_stream",
        Change("event_bus.sequence_gaps:SequenceGaps._advance", "self.missing += len(gap)", "pass"),
    ),
    Mutant(
        "a stream is acknowledged out of order",
        "test_consumer.py -k in_order_also",
        Change(
            "event_bus.consumer:EventConsumer._dispatch",
            "stream not in self._pending_by_stream and (not self._filter.matches_type(delivery.event.type))",
            "not self._filter.matches_type(delivery.event.type)",
        ),
    ),
    Mutant(
        "numbers of another consumer are missing",
        "test_consumer.py -k no_number_is_missing",
        Change("event_bus.consumer:EventConsumer._run", "self._gaps.reset()", "pass"),
    ),
    Mutant(
        "a subscriber learns another user's count",
        "test_bus.py -k no_count",
        Change(
            "event_bus.bus:EventBus._events_after",
            "None if event_filter.user_id is not None else self._find_counter(event_filter)",
            "self._find_counter(event_filter)",
        ),
    ),
    Mutant(
        "one number far ahead is believed",
        "test_consumer.py -k far_ahead",
        Change(
            "event_bus.sequence_gaps:SequenceGaps._advance",
            "len(gap) > MAX_JUMP and (not stream.has_jumped)",
            "False",
        ),
    ),
]
