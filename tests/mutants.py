"""Breaks the code in ways that matter and checks that a named test notices (part of `make soak`).

Each mutant is one replacement in a copy of the sources; its test has to fail on it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


HANGS_S = 150


class Mutant(NamedTuple):
    """What is broken, where, how, and the test that has to notice."""

    breaks: str
    file: str
    old: str
    new: str
    test: str


O, M = "orchestration", "models"
CONTRACTS, RETRY, GATE = f"{O}/test_contracts.py", f"{O}/test_retry.py", f"{M}/test_gate.py"
SESSIONS, CONVERSATIONS, PROCESSES = "sessions", "sessions/test_conversations.py", "sessions/test_processes.py"
MISHAPS = "sessions/test_mishaps.py"
AUTH, KEYS, JWT, LIMITS = f"{O}/test_auth_layer.py", "auth/test_keys.py", "auth/test_jwt.py", f"{O}/test_limits.py"
REDACTION, CANARY, METRICS = "test_redaction.py", "test_canary.py", "monitoring/test_metrics.py"
MONEY, LEDGERS, COST = "monitoring", "monitoring/test_ledger.py", f"{O}/test_cost.py"
BYTES, SAVERS = "sessions/test_bytes.py", "sessions/test_checkpointers.py"
BUS, CONSUMER, BROKERS = "event_bus/test_bus.py", "event_bus/test_consumer.py", "event_bus/test_brokers.py"
DURABLE, CLOUD = "event_bus/test_durable.py", "event_bus/test_cloud_event.py"
TRIGGERS, REPLAY = "triggers/test_triggers.py", "replay/test_replay.py"
POOL, WARM, MCP = "pool/test_instance_pool.py", "pool/test_session_pool.py", "mcp/test_broker.py"
FAULTS, PARITY, PROVIDERS = "pool/test_faults.py", "pool/test_parity.py", "models/test_provider_limiter.py"
EXECUTION, JOURNALS, PACE = "batch/test_execution.py", "batch/test_journals.py", "models/test_provider_pace.py"
RUNNABLE, BAD = f"{O}/test_runnable.py", "template/test_bad_templates.py"

MATCH, SENT = "monitoring/test_limits_that_match.py", f"{O}/test_caller_input.py"
OWN_AGENT, BOUNDS = "sessions/test_session_agent.py", f"{O}/test_answer_bounds.py"
WHOSE, OWNERS = "event_bus/test_event_identity.py", "batch/test_owners.py"

MUTANTS = [
    Mutant("order of layers", f"{O}/middleware/base.py", "in reversed(layers)", "in layers", f"{CONTRACTS} -k outermost"),
    Mutant("what is no layer is let through", f"{O}/middleware/base.py", "if not isinstance(layer, Middleware)", "if False", f"{CONTRACTS} -k not_a_layer"),
    Mutant("leaving a stream does not cancel", f"{O}/stream.py", "            task.cancel()\n", "            pass\n", f"{CONTRACTS} -k leaving_a_stream"),
    Mutant("leaving does not wait for clean-up", f"{O}/stream.py", "            await _finished(task)\n", "            pass\n", f"{CONTRACTS} -k leaving_a_stream"),
    Mutant("no back-pressure", f"{O}/stream.py", "if len(self._waiting) >= self._buffer:", "if False:", f"{CONTRACTS} -k back_pressure"),
    Mutant("runtime cancel as CancelledError", f"{O}/stream.py", "                        raise self._cancelled() from", "                        raise asyncio.CancelledError from", f"{CONTRACTS} -k call_cancelled"),
    Mutant("text emitted twice", f"{O}/parts.py", "with_text=message.id not in self._streamed", "with_text=True", f"{CONTRACTS} -k text_chunks"),
    Mutant("a unary call emits nothing", f"{O}/bare_agent.py", "if context.emit is not discard:", "if False:", f"{CONTRACTS} -k text_chunks"),
    Mutant("the run's variable leaks", f"{O}/core.py", "            current_run.reset(token)\n", "            pass\n", f"{CONTRACTS} -k leaks"),
    Mutant("retry after the first chunk", f"{O}/middleware/retry.py", "if progress.tools_started or opened:", "if progress.tools_started:", f"{RETRY} -k first_chunk"),
    Mutant("retry after the first tool", f"{O}/middleware/retry.py", "if progress.tools_started or opened:", "if opened:", f"{RETRY} -k tool_start"),
    Mutant("no resume from the checkpoint", f"{O}/bare_agent.py", "context.progress.resumable = bool(", "context.progress.resumable = not bool(", f"{RETRY} -k resumed"),
    Mutant("resume in mid-message", f"{O}/middleware/retry.py", "context.streaming and progress.message_open", "False", f"{RETRY} -k seen_part"),
    Mutant("control flow treated as failure", f"{O}/executor.py", "except GraphBubbleUp:", "except ZeroDivisionError:", f"{RUNNABLE} -k control_flow"),
    Mutant("limits not checked", f"{M}/gate.py", "            each.gate._check(each)\n", "            pass\n", f"{GATE} -k refused_before"),
    Mutant("a swallowed refusal is forgotten", f"{M}/run.py", "            self.refusal = error\n", "            pass\n", f"{GATE} -k cure"),
    Mutant("nested agents do not count", f"{M}/run.py", "(self,) if parent is None else (self, *parent.lineage)", "(self,)", f"{GATE} -k agent_used_as_a_tool"),
    Mutant("calls counted twice", f"{M}/callback_gate.py", "GATED_TAG in", "None in", f"{GATE} -k counted_once"),
    Mutant("cancelled calls are free", f"{M}/model_call.py", "not isinstance(error, Exception)):", "False):", f"{CONTRACTS} -k cancelling_a_unary"),
    Mutant("no model call timeout", f"{M}/gated_model.py", "return None if run is None or call is None else run.gate.model_call_timeout_s", "return None", f"{GATE} -k times_out"),
    Mutant("a blocking model call is not timed", f"{M}/gated_model.py", "    if left_s is None:\n        return step()", "    if True:\n        return step()", f"{GATE} -k blocking_model_call"),
    Mutant("a context serves two calls", f"{O}/executor.py", "        if context.progress.started:", "        if False:", f"{CONTRACTS} -k one_call"),
    Mutant("a rewriting hook streams", "assembly.py", '("wrap_model_call", "awrap_model_call")', "()", "test_factory.py -k vouches"),
    Mutant("no idle timeout", f"{O}/bare_agent.py", "return parts if self._idle_timeout_s is None else", "return parts if True else", f"{GATE} -k is_idle"),
    Mutant("no run timeout", f"{O}/executor.py", "asyncio.timeout_at(context.deadline)", "asyncio.timeout_at(None)", f"{GATE} -k run_timeout"),
    Mutant("threads not counted", "tools/gated_tool.py", "            each.threads.add(thread)\n", "            pass\n", f"{GATE} -k threads_of_sync_tools"),
    Mutant("a sessionless call is saved", f"{O}/bare_agent.py", 'copy({"checkpointer": None})', "copy({})", f"{RUNNABLE} -k nothing_is_left_behind"),
    Mutant("aliases allowed", "template/yaml_reader.py", "isinstance(event, yaml.AliasEvent)", "False", f"{BAD} -k T-06"),
    Mutant("links followed out of the folder", "template/document.py", "elif not candidate.resolve().is_relative_to(self.root):", "elif False:", f"{BAD} -k link"),
    Mutant("secrets accepted", "template/document.py", "if _SECRET.search(text):", "if False:", f"{BAD} -k T-41"),
    Mutant("any reference allowed", "assembly.py", 'check(f"{at}.tools.{i}.ref", "tool", tool.ref, registry.allowed_refs)', "pass", "test_factory.py -k python_references"),
    Mutant("PII streamed before it is redacted", "assembly.py", "hold_text=any(", "hold_text=False and any(", "test_factory.py -k pii"),
    Mutant("turns are not waited for", f"{SESSIONS}/turns.py", "            if lease is not None:\n                return lease", "            return lease or Lease(thread, owner, 1)", f"{PROCESSES} -k 'hundred_turns and sqlite'"),
    Mutant("an old token may write", f"{SESSIONS}/sqlite_records.py", "guard.token != token:", "False:", f"{PROCESSES} -k stands_still"),
    Mutant("an old token may write to Redis", f"{SESSIONS}/redis_scripts.py", "token ~= (held[1] or '0') then", "false then", f"{PROCESSES} -k stands_still"),
    Mutant("any head may be continued", f"{SESSIONS}/sqlite_records.py", "if head != row.parent_id:", "if False:", f"{PROCESSES} -k older_head"),
    Mutant("a lost lease goes unnoticed", f"{SESSIONS}/turns.py", "            holder.cancel()\n", "            pass\n", f"{PROCESSES} -k lease_is_lost"),
    Mutant("a cancelled wait keeps the lease", f"{SESSIONS}/turns.py", "                asking.add_done_callback(self._give_back)\n", "", f"{PROCESSES} -k cancelling_a_wait"),
    Mutant("waiting is not bounded", f"{SESSIONS}/turns.py", "if queue.users > self._max_waiting:", "if False:", f"{CONVERSATIONS} -k wait_is_bounded"),
    Mutant("the digest is not checked", f"{SESSIONS}/seal.py", "if not hmac.compare_digest(blob[_HEAD:_START], self._digest(payload, place)):", "if False:", f"{BYTES} -k flipped"),
    Mutant("the place is not sealed", f"{SESSIONS}/seal.py", "        mac.update(place.encode())\n", "", f"{BYTES} -k flipped"),
    Mutant("a key is not used", f"{SESSIONS}/seal.py", "key=self._key)", "key=b'')", f"{BYTES} -k forging"),
    Mutant("any type is read", f"{SESSIONS}/codec.py", "        if key not in self._allowed:\n            raise UnreadableBytes", "        if key not in self._allowed:\n            self._allowed[key] = None\n        if False:\n            raise UnreadableBytes", f"{BYTES} -k 'one_by_one or run_or_imported'"),
    Mutant("a quarantined session is written to", f"{SESSIONS}/memory_records.py", "        if found.quarantine:\n", "        if False:\n", f"{BYTES} -k never_overwritten"),
    Mutant("pruning cuts delta channels", f"{SESSIONS}/upkeep.py", "while open_channels and row.parent_id is not None:", "while False:", f"{SAVERS} -k delta_channel"),
    Mutant("the hot copy is handed out itself", f"{SESSIONS}/stored_list.py", "return [self._copy(index) for", "return [self._shown(index) for", f"{CONVERSATIONS} -k does_to_a_result"),
    Mutant("edits in place are not seen", f"{SESSIONS}/stored_list.py", "and _packed(part) == self._bytes", "", "sessions/test_attacks.py -k edited_in_place"),
    Mutant("every step stores the whole list", f"{SESSIONS}/stored_list.py", "kept = self._same_chunks(items)", "kept = 0", f"{SAVERS} -k stores_what_it_adds"),
    Mutant("nothing is repaired", f"{O}/conversation.py", "            await repair(agent, config, turn)\n", "            pass\n", f"{CONVERSATIONS} -k open_call"),
    Mutant("repair takes the snapshot for what is saved", f"{O}/conversation.py", "agent.aget_state({\"configurable\": configurable})", "agent.aget_state(config)", f"{PROCESSES} -k 'killed_anywhere and sqlite-message'"),
    Mutant("what finished tools wrote beside messages is lost", f"{O}/conversation.py", "        [(name, value) for name, value in written if name != \"messages\"],", "        [],", f"{CONVERSATIONS} -k finished_tools"),
    Mutant("effects are not recorded", "tools/effects.py", "    if turn is None or call_id is None or", "    if True or", f"{CONVERSATIONS} -k whose_end_is_not_known"),
    Mutant("a retry repeats an effect", f"{SESSIONS}/turn.py", "        self._own.clear()\n", "        pass\n", f"{MISHAPS} -k idle_timeout"),
    Mutant("a running session is cleaned up", f"{SESSIONS}/manager.py", "            if lease is not None:", "            if True:", f"{MISHAPS} -k cleaning_up"),
    Mutant("one lost connection ends all", "stores/redis_connection.py", "await client.connection_pool.disconnect(inuse_connections=False)", "await client.connection_pool.disconnect()", f"{MISHAPS} -k one_lost"),
    Mutant("a stale turn writes effects", f"{SESSIONS}/memory_records.py", "        tools = self._writable(thread, guard).tools\n        if result is None", "        tools = self._by_name[thread].tools\n        if result is None", f"{MISHAPS} -k stale_guard"),
    Mutant("records are not compared before they change", f"{SESSIONS}/sqlite_sessions.py", "WHERE key=? AND data=? AND gone=?", "WHERE key=? OR data=? AND gone=?", f"{MISHAPS} -k 'same_time and sqlite'"),
    Mutant("users of a tenant are not told apart", "types.py", "return principal is None or principal.id == owner or", "return True or", f"{CONVERSATIONS} -k as_good_as_none"),
    Mutant("tenants share their threads", f"{SESSIONS}/thread_ids.py", """return f"{checked_name(tenant, 'tenant')}:{checked_name(session_id)}\"""", """return f"all:{checked_name(session_id)}\"""", "sessions/test_tenancy.py"),
    Mutant("reserved keys are let through", f"{O}/reserved.py", "if key in RESERVED or", "if False or", f"{CONVERSATIONS} -k may_not_set"),
    Mutant("secrets are stored", f"{SESSIONS}/blobs.py", "if not _is_credential(name)", "if True", f"{CONVERSATIONS} -k credentials"),
    Mutant("a drain waits for the end", f"{O}/drain.py", "            control.request_drain(reason)\n", "            pass\n", f"{CONVERSATIONS} -k next_process"),
    Mutant("a drain forgets who gets ready", f"{O}/drain.py", '            control.request_drain("shutdown")\n', "            pass\n", f"{CONVERSATIONS} -k gets_ready"),
    Mutant("an evicting server is accepted", "stores/redis_server.py", 'if policy != "noeviction":', "if False:", "sessions/test_redis_faults.py -k evict"),
    Mutant("a server without a log is accepted", "stores/redis_server.py", 'if durable and not persistence.get("aof_enabled"):', "if False:", "sessions/test_redis_faults.py -k append_only"),
    Mutant("a budget ignores what is held", f"{MONEY}/ledger.py", "None if usd is None else usd - self.spent_micro_usd - self.held_micro_usd,", "None if usd is None else usd - self.spent_micro_usd,", f"{LEDGERS} -k 'holds_on_every and memory'"),
    Mutant("a budget on Redis ignores what is held", f"{MONEY}/redis_ledger.py", "tonumber(limit) - b[1] - b[2] + backUsd)", "tonumber(limit) - b[1] + backUsd)", f"{LEDGERS} -k 'agree and redis'"),
    Mutant("settling twice charges twice", f"{MONEY}/ledger_book.py", 'known.state == "settled":\n            self._top_up', 'known.state == "settled" and False:\n            self._top_up', f"{LEDGERS} -k 'repeated and memory'"),
    Mutant("an abandoned hold is free", f"{MONEY}/ledger_book.py", "self._charge(held, held.amount, held.amount, [])", "self._charge(held, NOTHING, held.amount, [])", f"{LEDGERS} -k 'abandoned and memory'"),
    Mutant("a lost reservation stays held", f"{MONEY}/purse.py", "                self._to_end.append(Ending(trip.reservation.operation_id, NOTHING))\n", "                pass\n", f"{COST} -k lost_answer"),
    Mutant("the output is not capped", f"{M}/request.py", "            self.kwargs[self.cap] = tokens", "            pass", f"{COST} -k capped"),
    Mutant("a provider's lies are believed", f"{M}/model_call.py", "or not believable(counts, bool(self._messages), self._chars)", "", f"{COST} -k lies"),
    Mutant("inner agents do not draw on the outer budget", f"{MONEY}/purse.py", "self.accounts = (*accounts, *(a for a in parent.accounts if a.key not in own))", "pass", f"{COST} -k used_as_a_tool"),
    Mutant("a cancelled call does not settle", f"{O}/middleware/cost.py", "            await purse.close()", "            pass", f"{COST} -k cancelled"),
    Mutant("money: holds are ignored under kills and losses", f"{MONEY}/redis_ledger.py", "tonumber(limit) - b[1] - b[2] + backUsd)", "tonumber(limit) - b[1] + backUsd)", "monitoring/test_money.py -k no_kill"),
    Mutant("what could not be written is lost", f"{MONEY}/purse.py", "            self.ledger.keep(endings)\n", "            pass\n", f"{COST} -k could_not_be_written"),
    Mutant("scopes are not asked for", "auth/scopes.py", "        raise Forbidden(needed)", "        pass", f"{AUTH} -k scopes"),
    Mutant("credentials go on inside", "types.py", "        sibling.credentials = None\n", "", f"{AUTH} -k goes_no_further"),
    Mutant("what a template requires is ignored", "pipeline.py", "if seats.authenticators or runtime.auth.require:", "if seats.authenticators:", f"{AUTH} -k may_need_more"),
    Mutant("a wrong secret passes", "auth/api_keys.py", "or principal is None or not same:", "or principal is None:", f"{KEYS} -k 'stored_is_no_key and memory'"),
    Mutant("a revoked key works", "auth/api_keys.py", 'if (state := record.state(self._clock())) != "active":', "if False:", f"{KEYS} -k 'revoked_key and memory'"),
    Mutant("a revocation is never noticed", "auth/api_keys.py", "known is None or known[3] <= now", "known is None", f"{KEYS} -k 'revoked_key and memory'"),
    Mutant("keys have no checksum", "auth/key_format.py", " or _value(key[_CHECKED:]) != zlib.crc32(key[:_CHECKED])", "", f"{KEYS} -k checksum"),
    Mutant("expired tokens work", "auth/jwt.py", 'if times["exp"] <= now - LEEWAY_S:', "if False:", f"{JWT} -k K-33"),
    Mutant("a time may be a text", "auth/jwt.py", "if not all(type(t) in (int, float) and -MAX_TIME < t < MAX_TIME for t in times.values()):", "if False:", f"{JWT} -k 'exp'"),
    Mutant("tokens live for ever", "auth/jwt.py", "> self._max_age_s + LEEWAY_S:", "> 1e20:", f"{JWT} -k 9999"),
    Mutant("several audiences are fine", "auth/jwt.py", '"strict_aud": True', '"strict_aud": False', f"{JWT} -k K-23"),
    Mutant("weak HMAC keys", "auth/jwt.py", "(reason := weakness_of(key, MIN_HMAC_BYTES)) is not None", "(reason := None) is not None", f"{JWT} -k could_be_guessed"),
    Mutant("revoked tokens work", "auth/jwt.py", 'if await self._revocations.acall("token_revoked", token_id):', "if False:", f"{JWT} -k revoked_token"),
    Mutant("a window has one too many", f"{MONEY}/windows.py", "if len(times) >= window.amount:", "if len(times) > window.amount:", f"{LIMITS} -k 'hundred_of and memory'"),
    Mutant("a window on Redis forgets too soon", f"{MONEY}/windows.py", "ARGV[2 * n] * 1000000 or 0", "ARGV[2 * n] * 500000 or 0", "monitoring/test_windows.py"),
    Mutant("a refused call is counted", f"{MONEY}/windows.py", "  if free > now then return {n, int(free - now), int(now)} end\nend\nfor n, key in ipairs(KEYS) do\n", "  if free > now then return {n, int(free - now), int(now)} end\n", f"{LIMITS} -k 'counts_in_none and redis'"),
    Mutant("empty windows are kept", f"{MONEY}/windows.py", "            kept.popitem(last=False)\n", "            break\n", f"{LIMITS} -k forgets"),
    Mutant("slots are not given back", f"{O}/middleware/concurrency.py", "            await self._give_back(store, taken, holder)\n", "            pass\n", f"{LIMITS} -k 'given_back and memory'"),
    Mutant("slots are held by the dead", f"{MONEY}/slots.py", "  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now))\n", "", f"{LIMITS} -k process_that_dies"),
    Mutant("inner agents are counted again", f"{M}/run.py", "    return frozenset().union(*(run.context.progress.counted for run in around.lineage))", "    return frozenset()", f"{LIMITS} -k counted_twice"),
    Mutant("a local limiter allows everything", f"{O}/middleware/rate_limit.py", "max(1, w.amount // share)", "w.amount", f"{LIMITS} -k local_limiter"),
    Mutant("registered secrets are not masked", "redaction.py", "if places := self._forms.find(text):", "if places := self._forms.find(''):", f"{CANARY} -k traceback"),
    Mutant("encoded secrets are not masked", "secret_forms.py", "    for shift in range(3):", "    for shift in range(0):", f"{REDACTION} -k every_form"),
    Mutant("extra fields are not masked", f"{MONEY}/logs.py", "json.dumps(self._redactor.value(made)", "json.dumps(made", "monitoring/test_logs.py -k redacted"),
    Mutant("a hanging sink stalls its caller", f"{MONEY}/logs.py", "self._lines.put_nowait(line)", "self._lines.put(line, timeout=1)", "monitoring/test_logs.py -k hangs"),
    Mutant("metrics grow without bound", f"{MONEY}/series.py", "if len(self._cells) >= self._max - 1 and shown not in self._cells:", "if False:", f"{METRICS} -k fifty_thousand"),
    Mutant("secrets in labels", f"{MONEY}/series.py", "SECRETS.text(str(value))[:MAX_LABEL]", "str(value)[:MAX_LABEL]", f"{METRICS} -k labels"),
    Mutant("a misspelt setting is ignored", "settings.py", '            problems.append(f"unknown setting {shown} ({source}): {close_matches(shown, names)}")\n', "", "test_settings.py -k at_once"),
    Mutant("a secret everybody may read", "secret_files.py", "if mode & stat.S_IROTH:", "if False:", "test_settings.py -k secret_files"),
    Mutant("holds of parallel calls are freed by each other", f"{MONEY}/purse.py", "            return granted, None, Trip(self._to_end.copy(), reservation)\n", "            self._to_end.append(Ending(operation_id, NOTHING))\n            return granted, None, Trip(self._to_end[:-1], reservation)\n", f"{COST} -k parallel_model_calls"),
    Mutant("a lapsed reservation is charged and held", f"{MONEY}/ledger_book.py", "            self._charge(expired, Amount(-expired.amount.micro_usd, -expired.amount.tokens), NOTHING, [])\n", "            pass\n", f"{LEDGERS} -k 'after_its_lease and sqlite'"),
    Mutant("a reservation after its end is granted", f"{MONEY}/ledger_book.py", 'if known.state == "held":', "if True:", f"{LEDGERS} -k 'after_its_end and sqlite'"),
    Mutant("a rotation undoes a revocation", "auth/key_stores.py", "        same = self._keys.get(old.id) == old\n", "        same = True\n", f"{KEYS} -k 'undo and memory'"),
    Mutant("an order switches a guard off", "pipeline.py", "    names = _with_enforced(list(names), configured)\n", "", f"{AUTH} -k guard"),
    Mutant("a secret stands at the cut", "redaction.py", "min(MAX_TEXT, len(masked) - MARGIN)", "MAX_TEXT", f"{REDACTION} -k cut"),
    Mutant("a lost cancellation stays lost", "stores/redis_connection.py", "            cancels.check()", "            pass", f"{PROCESSES} -k client_loses"),
    Mutant("bus grows without bound", "event_bus/subscription.py", 'deque(maxlen=buffer if policy == "drop_oldest" else None)', "deque()", f"{BUS} -k says_how_many"),
    Mutant("acknowledged before it was handled", "event_bus/consumer.py", "        event = delivery.event\n        try:", "        event = delivery.event\n        await self._acknowledge(delivery)\n        try:", f"{DURABLE} -k sqlite"),
    Mutant("acknowledged before it was handled, behind a proxy", "event_bus/consumer.py", "        event = delivery.event\n        try:", "        event = delivery.event\n        await self._acknowledge(delivery)\n        try:", f"{DURABLE} -k redis"),
    Mutant("a failed event is acknowledged without a letter", "event_bus/consumer.py", "await self._insist(lambda: put_aside(self.dead_letters, letter))", "pass", f"{CONSUMER} -k put_aside"),
    Mutant("a stream does not wait for its retries", "event_bus/consumer.py", "if stream in self._waiting:", "if False:", f"{CONSUMER} -k 'tried_again or each_stream'"),
    Mutant("known ids are handled again", "event_bus/consumer.py", "if await self._insist(lambda: self._seen.seen(self.name, name)):", "if False:", f"{CONSUMER} -k not_handled_again"),
    Mutant("no cause is told", "event_bus/consumer.py", "Cause(event.id, event.depth + 1)", "Cause(event.id, event.depth)", f"{CONSUMER} -k names_its_cause"),
    Mutant("drops are not told", "event_bus/subscription.py", "        if missing:\n            self._tell_gap(missing)\n", "", f"{BUS} -k says_how_many"),
    Mutant("a gap stands behind what survived it", "event_bus/subscription.py", 'if self.policy == "drop_oldest":\n            self._ready.appendleft', 'if False:\n            self._ready.appendleft', f"{BUS} -k says_how_many"),
    Mutant("no lock around publishing", "event_bus/bus.py", "        lock.acquire()  #", "        #", f"{BUS} -k many_threads"),
    Mutant("a wake-up from another thread is lost", "event_bus/subscription.py", "            loop.call_soon_threadsafe(_resolve, waiter)", "            pass", f"{BUS} -k another_thread"),
    Mutant("a failing handler ends its subscription", "event_bus/subscription.py", "            except BaseException as error:  # noqa: BLE001 - whatever", "            except ZeroDivisionError as error:  # noqa: BLE001 - whatever", f"{BUS} -k harms_no_other"),
    Mutant("a failing plain handler ends its thread", "event_bus/subscription.py", "                except BaseException as error:  # noqa: BLE001 - the same", "                except ZeroDivisionError as error:  # noqa: BLE001 - the same", f"{BUS} -k harms_no_other"),
    Mutant("what was retained is repeated", "event_bus/bus.py", "event.seq > after and", "event.seq >= after and", f"{BUS} -k comes_back"),
    Mutant("coming back too late is not told", "event_bus/bus.py", "return 0 if whole else max(0, own[0].seq - after - 1)", "return 0", f"{BUS} -k too_late"),
    Mutant("two tenants share a stream", "event_bus/event.py", 'else f"{_quoted(tenant)}/{plain}"', "else plain", f"{BUS} -k counted_from_one"),
    Mutant("the slowest group is not asked", "event_bus/brokers/sqlite.py", "border[0] if slowest is None else min(border[0], slowest)", "border[0]", f"{BROKERS} -k 'sqlite and trimming'"),
    Mutant("Redis trims what nobody has seen", "event_bus/brokers/redis.py", "if slowest and not (before(id, slowest) or (id == slowest and not pending)) then break end", "", f"{BROKERS} -k 'redis and trimming'"),
    Mutant("two readers of one group", "event_bus/brokers/redis.py", "if owner and owner ~= ARGV[1] then return 0 end", "", f"{BROKERS} -k 'redis and one_reader'"),
    Mutant("what is pending on Redis is not read first", "event_bus/brokers/redis.py", "        if owner not in self._new_only:", "        if False:", f"{BROKERS} -k 'redis and not_acknowledged'"),
    Mutant("a later acknowledgement covers an open event", "event_bus/brokers/group_reader.py", "            if not acked:\n                break\n", "            if not acked:\n                continue\n", f"{BROKERS} -k 'sqlite and out_of_order'"),
    Mutant("NATS forgets ids", "event_bus/brokers/nats.py", 'headers={"Nats-Msg-Id": _header(name)}', "headers={}", f"{BROKERS} -k takes_an_event_once"),
    Mutant("a relay gives up", "event_bus/relay.py", "                await asyncio.sleep(pause_s)\n                pause_s = min(pause_s * 2, MAX_PAUSE_S)", "                return", f"{CONSUMER} -k relay_hands_over"),
    Mutant("secrets on the wire", "event_bus/cloud_event.py", "            made = SECRETS.whole(made)\n", "            pass\n", f"{CLOUD} -k secrets"),
    Mutant("suspects are not looked for among small letters", "redaction.py", "text.casefold()", "text", "test_redaction.py -k passed_over"),
    Mutant("a flush of a dead relay succeeds", "event_bus/relay.py", "        if self._done < wanted:", "        if False:", f"{CONSUMER} -k flush"),
    Mutant("one bad event ends the relay", "event_bus/relay.py", "            except Exception as error:  # noqa: BLE001 - one event", "            except ZeroDivisionError as error:  # one event", f"{CONSUMER} -k cannot_be_sent"),
    Mutant("a handler's own cancellation is its consumer's", "event_bus/consumer.py", "if task is None or task.cancelling():", "if True:", f"{CONSUMER} -k cancellation_of_its_own"),
    Mutant("a failed acknowledgement is forgotten", "event_bus/brokers/group_reader.py", "                    await self._settle()  # what", "                    # what", f"{CONSUMER} -k sent_again"),
    Mutant("what was fetched before a new beginning counts", "event_bus/brokers/group_reader.py", "        if self._round != fetching:", "        if False:", f"{CONSUMER} -k lease_was_lost"),
    Mutant("a batch is known before it is there", "event_bus/brokers/redis.py", "if redis.call('EXISTS', KEYS[2]) == 0 then", "if redis.call('SET', KEYS[2], '1', 'NX') then", f"{BROKERS} -k only_when_it_is_there"),
    Mutant("a client's lost cancellation is lost", "event_bus/brokers/nats.py", "            cancels.check()", "            pass", f"{BROKERS} -k client_loses"),
    Mutant("a file is opened beside its connections", "stores/sqlite_file.py", "os.O_CREAT | os.O_EXCL | os.O_RDWR", "os.O_CREAT | os.O_RDWR", f"{BROKERS} -k several_connections"),
    Mutant("a circle of triggers runs on", "triggers/handler.py", "if event.depth >= rule.max_depth:", "if False:", f"{TRIGGERS} -k circle"),
    Mutant("depth is not passed on", "triggers/handler.py", "token = current_cause.set(Cause(event.id, event.depth + 1))", "token = current_cause.set(None)", f"{TRIGGERS} -k circle"),
    Mutant("any truthy condition holds", "triggers/expressions.py", "evaluated(condition, facts) is True", "bool(evaluated(condition, facts))", f"{TRIGGERS} -k starts_nothing"),
    Mutant("a rule's rate is nobody's", "triggers/handler.py", "    if rule.rate is not None:", "    if False:", f"{TRIGGERS} -k rules_rate"),
    Mutant("webhooks are not signed", "triggers/webhook.py", "if not signed(hook, key, headers, body):", "if False:", f"{TRIGGERS} -k not_good"),
    Mutant("old signatures are good", "triggers/webhook.py", "abs(time.time() - int(moment)) > MAX_AGE_S", "False", f"{TRIGGERS} -k not_good"),
    Mutant("a replay runs tools", "replay/player.py", "        return revived(answer) if known else cls.run(self, tool_input, *args, **kwargs)", "        return cls.run(self, tool_input, *args, **kwargs)", f"{REPLAY} -k shipped"),
    Mutant("a replay takes any answer", "replay/tape.py", "comparable(kind, step.request) == asked", "True", f"{REPLAY} -k first_difference"),
    Mutant("missing calls are no difference", "replay/runs.py", "if (missing := tape.unplayed()) is not None:", "if (missing := None) is not None:", f"{REPLAY} -k fewer_calls"),
    Mutant("what a worker started is left", "pool/isolation/process_tree.py", "    for pid in doomed - {os.getpid()}:", "    for pid in set[int]():", f"{FAULTS} -k daemon"),
    Mutant("the group of a dead worker is left", "pool/isolation/process.py", "        self.kill()  # what it started, and left\n", "", f"{FAULTS} -k 'fork or daemon'"),
    Mutant("nobody looks for signs of life", "pool/instance_worker.py", "        if now_s - self.process.link.last_heard_s > limit_s:", "        if False:", f"{FAULTS} -k 'stop or loop'"),
    Mutant("memory is not watched", "pool/instance_worker.py", "        if used_mb > limit_mb and self.instance.alive:", "        if False:", f"{FAULTS} -k memory"),
    Mutant("output is not counted", "pool/instance_worker.py", "        if self._written > self._config.output_mb << 20:", "        if False:", f"{FAULTS} -k flood"),
    Mutant("a cancel does not kill", "pool/instance_worker.py", "            self.kill(WorkerStalled(self._config.grace", "            (lambda _: None)(WorkerStalled(self._config.grace", "pool/test_mishaps.py -k nobody_hears"),
    Mutant("the guard guards nothing", "pool/isolation/guard.py", "            kill_family(pid, MARK, instance_id)", "            pass", f"{POOL} -k application_is_killed"),
    Mutant("exceptions are pickled whole", "pool/isolation/failures.py", "        error = found.__new__(found)\n        error.args = _loaded(failure.args, ())", "        error = found(*_loaded(failure.args, ()))", f"{FAULTS} -k raise"),
    Mutant("a provider's error is a likeness", "pool/isolation/failures.py", "    if failure.ref is not None and failure.ref in kept:", "    if False:", f"{PARITY} -k comes_back"),
    Mutant("any thread's checkpoints are shown", "pool/isolation/service.py", '        if given.get("thread_id") != thread:', "        if False:", f"{PARITY} -k another_sessions"),
    Mutant("any model may be asked for", "pool/isolation/desk.py", "        if spec not in self._model_specs:", "        if False:", f"{PARITY} -k names_no"),
    Mutant("tool calls of a worker are free", "pool/isolation/service.py", "        self._open_tools[number] = self._run.open_tool(name, args, call_id)", "        pass", f"{PARITY} -k 'outside or again_and_again'"),
    Mutant("priorities are nothing", "pool/waiting.py", "waiter = Waiter((-priority, next(_ORDER))", "waiter = Waiter((0, next(_ORDER))", f"{POOL} -k urgent"),
    Mutant("the queue has no bound", "pool/roster.py", "        if len(self.waiting) >= self._config.queue and", "        if False and", f"{POOL} -k bounded"),
    Mutant("the sum of memory has no bound", "pool/room.py", "        fits = total_mb is None or reserved_mb", "        fits = True or reserved_mb", f"{POOL} -k sum_of_memory"),
    Mutant("outdated instances serve", "pool/roster.py", "if each.version is not latest]", "if False]", f"{POOL} -k what_changed"),
    Mutant("a poisoned task runs on", "pool/poison.py", "        if kills < self._max_kills:", "        if True:", f"{POOL} -k put_aside"),
    Mutant("an instance with a busy thread is used", "pool/isolation/job_run.py", "            self.worn = bool(", "            self.worn = False and bool(", f"{POOL} -k left_in_a_thread"),
    Mutant("starts fail for ever in a loop", "pool/starts.py", "        return None if times >= MAX_FAILURES else wait_s", "        return wait_s", f"{POOL} -k cannot_be_made"),
    Mutant("every caller builds", "pool/session_pool.py", "            build = self._building.get(slot)", "            build = None", f"{WARM} -k hundred"),
    Mutant("fingerprints are not compared", "pool/contexts.py", "            if context.fingerprint == fingerprint and not", "            if not", f"{WARM} -k never_served_old"),
    Mutant("who joined late is not checked", "pool/session_pool.py", "                if now == context.fingerprint:", "                if True:", f"{WARM} -k joined_late"),
    Mutant("pins are nothing", "pool/contexts.py", "                if not each.pins:", "                if True:", f"{WARM} -k pins"),
    Mutant("code is not part of a key", "registry.py", "        return id(found), code", "        return None", f"{WARM} -k never_served_old"),
    Mutant("secrets are not part of a key", "agent_keys.py", "        secrets = tuple([secret_version(each.api_key) for each in spec.all_models()])", "        secrets = ()", f"{WARM} -k never_served_old"),
    Mutant("scopes share servers", "mcp/server.py", "        content = json.dumps([connection, scope, spec.timeout], sort_keys=True)", "        content = json.dumps([connection, spec.timeout], sort_keys=True)", f"{MCP} -k never_shared"),
    Mutant("a notice is not heard", "mcp/connection.py", "            self._notices += 1", "            pass", f"{MCP} -k list_that_changed"),
    Mutant("a dead session is kept", "mcp/connection.py", "            self._broken.set()", "            pass", f"{MCP} -k 'hangs or restarted'"),
    Mutant("a server may start for ever", "mcp/connection.py", "            async with asyncio.timeout(self.server.timeout_s) as opening:", "            async with asyncio.timeout(None) as opening:", f"{MCP} -k never_gets_ready"),
    Mutant("servers are never closed", "mcp/broker.py", "                if unused_s > self._idle_s:", "                if False:", f"{MCP} -k nobody_uses"),
    Mutant("accounts admit anybody", "models/provider_limiter.py", "        room = self.limit is None or self.in_flight < self.limit", "        room = True", f"{PROVIDERS} -k never_more"),
    Mutant("an overload changes nothing", "models/provider_limiter.py", "            if error is not None and is_overload:", "            if False:", f"{PROVIDERS} -k halves"),
    Mutant("places are not given back", "models/model_call.py", "            self._place.leave(error)", "            pass", f"{PROVIDERS} -k 'take_places or vendors'"),
    Mutant("retry-after is not obeyed", "models/provider_limiter.py", "            self._blocked_until_s = max(self._blocked_until_s, until_s)", "            pass", f"{PROVIDERS} -k retry_after"),
    Mutant("skills may lead anywhere", "template/skills.py", "            if not file.resolve().is_relative_to(root.resolve()):", "            if False:", "orchestration/test_subagents.py -k nothing_outside"),
    Mutant("a skill's reader goes anywhere", "tools/skill_reader.py", "if file.is_relative_to(folder) and file.is_file()", "if file.is_file()", "orchestration/test_subagents.py -k 'needed or outside'"),
    Mutant("a cancelled waiter is served", "pool/waiting.py", " or heap[0].given.done()):  # cancelled, but not told yet", "):", "pool/test_mishaps.py -k cancels_in_the_queue"),
    Mutant("a task that failed here runs on there", "pool/instance_worker.py", "                await self._stopped(job)  # cancelled, or", "                pass  # cancelled, or", "pool/test_mishaps.py -k what_one_call"),
    Mutant("closing forgets those that wait", "pool/roster.py", "        for waiter in self.waiting.everybody():", "        for waiter in ():", "pool/test_mishaps.py -k closing_tells"),
    Mutant("memory makes no room", "pool/roster.py", "        if not self._room.within_limit(agent) or self._room.within_pool(agent):", "        if not self._room.within_limit(agent) or len(self.workers) < self._config.size:", "pool/test_mishaps.py -k by_memory"),
    Mutant("older versions are not drained", "pool/catalog.py", "[*self._versions.values(), *self._older]", "[*self._versions.values()]", "pool/test_mishaps.py -k older_versions"),
    Mutant("the guard hears late", "pool/instance_worker.py", "                self._on_begin(self)\n", "", "pool/test_mishaps.py -k being_made"),
    Mutant("bytes are not counted", "pool/isolation/job_run.py", " or self._bytes > MAX_INBOX_BYTES:", ":", "pool/test_mishaps.py -k by_bytes"),
    Mutant("what is left running goes on", "pool/isolation/worker.py", "        if await self._left_running():", "        if False:", "pool/test_mishaps.py -k what_one_call"),
    Mutant("overrides are not part of a key", "pool/session_pool.py", "        template = self._files.get(source, overrides)\n        fingerprint", "        template = self._files.get(source)\n        fingerprint", f"{WARM} -k overrides_bring"),
    Mutant("made tools are shared", "registry.py", '        return inspect.isclass(found) or getattr(found, "_makes_tool", False)', "        return False", f"{WARM} -k never_shared"),
    Mutant("results are seen before they are kept", "batch/journal/writer.py", "                await self._write([each.change for each in outcomes])\n                if not", "                if news := [e for e in outcomes if e.news]:\n                    self._on_kept(news)\n                await self._write([each.change for each in outcomes])\n                continue\n                if not", f"{EXECUTION} -k store_that_fails"),
    Mutant("a stale owner writes", "batch/journal/sqlite.py", "            self._check_owner(execution_id, token)\n            self._db.executemany", "            self._db.executemany", f"{JOURNALS} -k one_owner"),
    Mutant("two owners at once", "batch/journal/redis.py", "if alive then return", "if false then return", f"{JOURNALS} -k one_owner"),
    Mutant("a stale owner writes to Redis", "batch/journal/redis.py", "if not token or token ~= ARGV[1] or owner == '' then return 'lost' end", "", f"{JOURNALS} -k 'one_owner or lost'"),
    Mutant("ids are taken twice", "batch/journal/redis.py", "if redis.call('HEXISTS', KEYS[2], id) == 1 or", "if", f"{JOURNALS} -k 'ids_are or alike'"),
    Mutant("low starves", "batch/queue.py", "rank = level + max(0.0, now - line[0].accepted_s) / self._aging_s", "rank = level", "batch/test_queue.py -k starves"),
    Mutant("the queue has no bound", "batch/queue.py", "        if self._waiting + self.promised >= self.size:\n            raise", "        if False:\n            raise", "batch/test_queue.py -k wait_for_room"),
    Mutant("producers are not held back", "batch/queue.py", "        while self._waiting + self.promised >= self.size and not self._closed:", "        while False:", f"{EXECUTION} -k held_back"),
    Mutant("limits of agents do not hold", "batch/queue.py", "if limit is not None and self._running[agent] >= limit:", "if False:", f"{EXECUTION} -k limit_of_its_own"),
    Mutant("a woken worker keeps its turn", "batch/queue.py", "                if came.done() and not came.cancelled():\n                    _wake(self._takers)\n", "", "batch/test_queue.py -k passes_its_turn"),
    Mutant("everything is tried again", "batch/error_handling.py", "if kind in retry.classes and attempt < retry.attempts:", "if attempt < retry.attempts:", f"{EXECUTION} -k transient"),
    Mutant("retries have no budget", "batch/error_handling.py", "        if self.used >= FREE_RETRIES + self.share * self.tasks:", "        if False:", f"{EXECUTION} -k have_a_budget"),
    Mutant("a refusal is an attempt", "batch/task_run.py", '        if decision.action == "postpone":', "        if False:", f"{EXECUTION} -k says_when"),
    Mutant("fail fast goes on", "batch/task_run.py", "if settings.fail_fast or not settings.continue_on_error:", "if False:", f"{EXECUTION} -k 'failures or fail_fast'"),
    Mutant("fail fast lets others end", "batch/execution.py", 'at_once = self.settings.fail_fast and state == "failed"', "at_once = False", f"{EXECUTION} -k fail_fast_stops"),
    Mutant("a stubborn task is waited for", "batch/keeper.py", "                run.crew.give_up(attempt)\n", "                pass\n", f"{EXECUTION} -k ignores_its_cancel"),
    Mutant("cancel does not stop", "batch/crew.py", "            attempt.stop()\n", "            pass\n", f"{EXECUTION} -k cancel_begins"),
    Mutant("cancel begins more", "batch/execution.py", "            self._ending = (state, why)\n        self.queue.hold()", "            self._ending = (state, why)", f"{EXECUTION} -k get_free"),
    Mutant("what was running is not run again", "batch/feeder.py", "                run.writer.put(lost)", "                pass", "batch/test_crashes.py -k kill"),
    Mutant("finished tasks are run again", "batch/journal/sqlite.py", "            self._db.executemany(update, rows)", "            pass", f"{EXECUTION} -k on_every_journal"),
    Mutant("poison is never put aside", "batch/task_run.py", "        if row.starts < most:", "        if True:", f"{EXECUTION} -k lost_its_workers"),
    Mutant("the batch has no account", "batch/task_run.py", "            call.accounts = (run.account,)", "            pass", "batch/test_money.py -k overspends"),
    Mutant("the budget's end fails tasks", "batch/task_run.py", "if isinstance(error, BudgetExceeded) and account is not None and error.account == account.key:", "if False:", "batch/test_money.py -k overspends"),
    Mutant("nobody is asked", "batch/feeder.py", "        if needs_approval(run.execution, settings):", "        if False:", "batch/test_money.py -k approval"),
    Mutant("the pilot is all", "batch/feeder.py", "            self._pilot = set(places)", "            self._pilot = set(range(1, run.tally.total + 1))", "batch/test_money.py -k approval"),
    Mutant("a name is not the ledger's", "monitoring/purse.py", 'name = key or f"{self._operation_id}:{self._number}"', 'name = f"{self._operation_id}:{self._number}"', "batch/test_crashes.py -k kill"),
    Mutant("what was paid is paid again", "monitoring/ledger_book.py", "            if known.state == \"settled\" and known.amount != NOTHING:\n                return asked.wanted, None\n", "", f"{LEDGERS} -k bought_under"),
    Mutant("names are not sent", "models/request.py", '            kwargs["extra_headers"] = {', '            kwargs = {', "wire/test_wire.py -k have_names"),
    Mutant("a name changes at each start", "batch/attempt.py", 'f"{task_id}:{row.tries + 1}"', 'f"{task_id}:{row.tries + row.starts}"', "batch/test_crashes.py -k kill"),
    Mutant("sessions begin anew", "batch/task_run.py", "            call.input = None", "            pass", "batch/test_crashes.py -k sessions"),
    Mutant("no pace is learned", "models/provider_pace.py", "            self.rate = BELOW * answered / elapsed_s", "            pass", PACE),
    Mutant("the pace never rises", "models/provider_pace.py", "self.rate * (1 + self._step)", "self.rate", PACE),
    Mutant("a bad row ends the file", "batch/sources.py", "            yield Row(place, None, f\"not JSON: {error}\")\n            continue", "            return", "batch/test_sources.py -k jsonl"),
    Mutant("templates change in mid-batch", "batch/backends.py", "        if made is not None and not task.inputs:", "        if False:", f"{EXECUTION} -k one_version"),
    Mutant("prompts are the first task's", "batch/backends.py", "agent.with_prompt(rendered_prompt(template, values)) if template.inputs else agent", "agent", "batch/test_backends.py -k inputs_fill"),
    Mutant("what ended meanwhile is run again", "batch/feeder.py", " and row.seq not in self._ended]", "]", "batch/test_mishaps.py -k late_answer"),
    Mutant("a promised task is forgotten", "batch/execution.py", " + self.queue.promised", "", "batch/test_mishaps.py -k being_accepted"),
    Mutant("what a budget interrupts is an answer", "batch/task_run.py", "if answer.interrupts and _exhausted(", "if False and _exhausted(", "batch/test_money.py -k conversations"),
    Mutant("only the first ones are read", "batch/feeder.py", "                self._look.set()\n            self._ended", "            self._ended", f"{EXECUTION} -k settings_change"),
    Mutant("a place that is taken is asked for for ever", "batch/intake.py", "            refused -= await self._known(refused)\n", "            pass\n", "batch/test_interrupted.py -k hiccup"),
    Mutant("who leaves takes the task along", "batch/submission.py", "await asyncio.shield(asyncio.ensure_future(self._accepted(run, task)))", "await self._accepted(run, task)", "batch/test_interrupted.py -k goes_away"),
    Mutant("what was not read is completed", "batch/execution.py", "if self._begun and not self.open and", "if not self.open and", "batch/test_interrupted.py -k loads_leaves"),
    Mutant("a pause is stopped as a task", "batch/task_run.py", "        attempt.end()  # it is", "        pass  # it is", "batch/test_interrupted.py -k overdue"),
    Mutant("who asks holds the budget", "batch/task_run.py", "len(self._run.running) > 1", "self._run.running", "batch/test_interrupted.py -k dead_call"),
    Mutant("what was spent before is free", "batch/shop.py", 'float(execution.source.get("unbudgeted_usd", 0))', "0.0", "batch/test_interrupted.py -k comes_later"),
    Mutant("what was lost has another name", "batch/task_run.py", 'row.status, row.starts = "pending", 1', 'row.status, row.starts, row.tries = "pending", 1, row.tries + 1', "batch/test_interrupted.py -k names_again"),
    Mutant("a rest is time of the batch", "batch/execution.py", "            self.tally.go_on()\n", "", "batch/test_interrupted.py -k rests"),
    Mutant("a closing executor begins more", "batch/executor.py", "            self._check_open()  # it may", "            pass  # it may", "batch/test_interrupted.py -k closes"),
    Mutant("zombies count as workers", "batch/crew.py", "            self._workers.discard(attempt.worker)\n", "            pass\n", "batch/test_mishaps.py -k given_up"),
    Mutant("approval is passed over", "batch/executor.py", "    if needs_approval(execution, settings):", "    if False:", "batch/test_mishaps.py -k its_approval"),
    Mutant("a refusal gives back", "monitoring/ledger_book.py", "                return None, self._refusal(account.key)\n        if expired", "                if expired is not None:\n                    self._charge(expired, Amount(-expired.amount.micro_usd, 0), NOTHING, [])\n                return None, self._refusal(account.key)\n        if expired", "monitoring/test_ledger_names.py"),
    Mutant("an estimate is the last word", "monitoring/ledger_book.py", "            self._top_up(known, ending, now, charges)\n", "", "monitoring/test_ledger_names.py"),
    Mutant("a name is used twice in a call", "models/request.py", "    times = request.run.context.progress.said", "    times: dict[str, int] = {}", "batch/test_mishaps.py -k name_of_its_own"),
    Mutant("an exit in a tool goes through", "errors/user_code.py", "    exit_error = ExitFromUserCode(", "    raise error\n    exit_error = ExitFromUserCode(", "scenarios/test_user_code.py -k test_a_tool"),
    Mutant("a newer file is opened", "stores/sqlite_schema.py", "        if file_version > FILE_VERSION:", "        if False:", "stores/test_versions.py -k newer"),
    Mutant("a jump of the clock deletes", "stores/deletion_clock.py", "        if self.offset_s is None:\n            return min", "        return wall_s\n        if self.offset_s is None:\n            return min", "stores/test_clocks.py -k stands_by_its_time"),
    Mutant("prod may forget", "settings.py", "        if address.is_in_memory:", "        if False:", "test_settings.py"),
    Mutant("a misspelt tool needs no approval", "tool_names.py", "            raise ConfigurationError(self.unknown(name))", "            return", "template/test_tool_names.py"),
    Mutant("a fee per request is not reserved", "models/request.py", "    fee = 0 if highest is None else highest.request", "    fee = 0", "scenarios/reports/test_service_tier.py -k fee"),
    Mutant("a packed flood is read", "models/http_transport.py", "            if self._size > MAX_ANSWER_BYTES:", "            if False:", "models/test_unreadable_answers.py -k flood"),
    Mutant("a name stands twice in a token", "strict_json.py", "        raise ValueError(\"a name stands twice in an object\")", "        pass", "auth/test_jwt.py -k bad_token"),
    Mutant("parts carry the runtime's keys", "orchestration/parts.py", "self._public(data) if mode in _WITH_CONFIGS else data", "data", "scenarios/test_nothing_internal.py -k stream_mode"),
    Mutant("an unusable input is taken", "orchestration/executor.py", "            check_input(context.input, self.agent)\n", "", "scenarios/test_call_input.py -k unusable_input"),
    Mutant("a session that nothing keeps is taken", "orchestration/bare_agent.py", "        check_session(context, self.agent, has_session=self.has_session(context))\n", "", "scenarios/test_call_input.py -k nothing_keeps"),
    Mutant("an odd result ends the run", "tools/tool_result.py", "        raise UnusableResult(error_text(failure)) from failure", "        raise", "scenarios/test_call_input.py -k cannot_be_used"),
    Mutant("what may have run is said not to have", "orchestration/conversation.py", " or call[\"name\"] not in recorded", "", "scenarios/test_call_input.py -k may_have_run"),
    Mutant("a forgotten session fails its call", "mcp/connection.py", "            if _is_not_run(error):\n                raise _NotRun from error\n", "", "scenarios/reports/test_mcp_restart.py -k redeploy"),
    Mutant("a call that was read is sent again", "mcp/program.py", "        return self._ends.get(request_id, 0) <= self._read", "        return False", "scenarios/reports/test_mcp_restart.py -k sent_twice"),
    Mutant("a cancel is not told to the server", "mcp/connection.py", "            await self._cancel_request(session, call)\n", "", "scenarios/reports/test_mcp_cancel.py -k stdio"),
    Mutant("an old token stays with its agent", "mcp/broker.py", "        return lambda: self._opened(McpServer.of(spec, folder, scope))", "        return lambda: connection", "scenarios/reports/test_mcp_token.py"),
    Mutant("an answer without result is dropped", "mcp/messages.py", "        return [each for each in requests.open_requests if each == request_id]", "        return []", "mcp/test_unreadable_answers.py -k 'programs and neither'"),
    Mutant("orphans of a server stay", "mcp/supervisor.py", "    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)\n", "", "scenarios/reports/test_mcp_processes.py"),
    Mutant("orphans of a worker stay", "pool/isolation/worker.py", "    kill_descendants()\n", "", "scenarios/reports/test_pool_signals.py"),
    Mutant("a cut answer is free", "models/answers.py", "        call.note_usage(_usage_of(error))\n", "", "models/test_unreadable_answers.py -k cut"),
    Mutant("a cut answer is asked for again", "orchestration/failures.py", "_COME_AGAIN = CUT_ANSWERS | {\"AnswerTooLarge\"}", "_COME_AGAIN = frozenset({\"AnswerTooLarge\"})", "models/test_unreadable_answers.py -k cut"),
    Mutant("a lease by the wall clock never ends", "stores/process_identity.py", "        return until_boot_s > time.time()", "        return True", "stores/test_clocks.py -k earlier_version"),
    Mutant("half a password is shown", "stores/store_url.py", "SECRETS.text(str(self._text)[:4096])", "SECRETS.text(str(self._text)[:60])", "stores/test_store_url.py -k password"),
    Mutant("a signal in a task group is contained", "errors/user_code.py", "        return any(is_from_signal(each) for each in error.exceptions)", "        return False", "scenarios/test_user_code.py -k task_group"),
    Mutant("an object as a node has no boundary", "orchestration/boundaries.py", " or inspect.iscoroutinefunction(type(function).__call__)", "", "scenarios/test_user_code.py -k any_shape"),
    Mutant("a mapped chain has no boundary", "orchestration/boundaries.py", "RunnableBindingBase | RunnableEachBase", "RunnableBindingBase", "scenarios/test_user_code.py -k any_shape"),
    Mutant("one answer of many is reserved", "models/request.py", "                self.answers = wanted", "                pass", "models/test_gate.py -k answers_that"),
    Mutant("a model's own arguments have no price", "models/request.py", "(kwargs.get(\"extra_body\"), *own)", "(kwargs.get(\"extra_body\"),)", "models/test_gate.py -k own_arguments"),
    Mutant("an address that begins alike is the provider", "monitoring/model_names.py", "match.end() == len(address) or", "True or", "monitoring/test_prices.py -k who_bills"),
    Mutant("a budget's limit is an argument everywhere", "models/request.py", "            self.field_limit = tokens\n", "            self.kwargs[self.cap] = tokens\n", "models/test_gate.py -k field_or"),
    Mutant("two threads make tools at once", "tools/function_tool.py", "    with _SCHEMA_LOCK:\n        return", "    if True:\n        return", "tools/test_function_tool.py"),
    Mutant("a pair is two messages", "orchestration/messages.py", "[value] if is_pair(value) else value", "value", "scenarios/test_call_input.py -k pair_is"),
    # -- a hostile caller, template, tool or neighbour --
    Mutant("a budget of one is for all", "monitoring/budgets.py", " and self.user in (None, caller.user)", "", f"{MATCH} -k exactly"),
    Mutant("a budget matches quoted names", "monitoring/budgets.py", "self.tenant in (None, caller.tenant)", "self.tenant in (None, part_name('tenant', caller))", f"{MATCH} -k holds_for"),
    Mutant("the general budget counts, too", "monitoring/budgets.py", "or budget.names < most_names[budget.scope, budget.per]", "", f"{MATCH} -k most_names"),
    Mutant("a budget for nobody is taken", "monitoring/budgets.py", "if (fault := fault_of_names(self.scope, self.only, self.tenant, self.user)) is not None:", "if False:", f"{MATCH} -k no_call"),
    Mutant("a caller without a key is not counted", "monitoring/caller_names.py", 'return f"user:{user}" if part == "key" else user', 'return None if part == "key" else user', f"{MATCH} -k without_a_key"),
    Mutant("a command that steers is an answer", f"{O}/caller_input.py", "    if not steers:\n", "    if True:\n", f"{SENT} -k steers_needs"),
    Mutant("a subclass of Command is an input", f"{O}/caller_input.py", "if not isinstance(value, Command):", "if type(value) is not Command:", f"{SENT} -k scope"),
    Mutant("roles are not looked at", f"{O}/middleware/auth.py", "            check_roles(context.input, self._roles)\n", "", f"{SENT} -k another_role"),
    Mutant("an input sets any channel", f"{O}/call_input.py", "if keys is not None and not keys >= state.keys():", "if False:", f"{SENT} -k own_keys"),
    Mutant("another agent goes on", f"{SESSIONS}/manager.py", "                check_agent(session, agent or {})\n", "                pass\n", f"{OWN_AGENT} -k another_agent_does"),
    Mutant("an agent is built for anybody", "factory.py", "                check_scope(principal, scope)\n", "                pass\n", f"{OWN_AGENT} -k no_process"),
    Mutant("an agent is built when nothing waits", f"{SESSIONS}/manager.py", 'if session.status == "idle" and not await self._is_interrupted(session):', "if False:", f"{OWN_AGENT} -k no_process"),
    Mutant("a state is saved by anybody", f"{SESSIONS}/history.py", "            check_scope(principal, scope)\n", "            pass\n", f"{OWN_AGENT} -k saved_state"),
    Mutant("labels are not quoted", f"{SESSIONS}/redis_store.py", "return SEPARATOR.join(map(_quoted, namespace)) + SEPARATOR + _KEY + _quoted(key)", "return SEPARATOR.join(namespace) + SEPARATOR + _KEY + key", "sessions/test_memory_store.py -k reaches_into"),
    Mutant("tenants share a memory", f"{SESSIONS}/tenant_store.py", 'return "tenant " + quoted', 'return "tenant " or quoted', "sessions/test_memory_store.py -k each_tenant"),
    Mutant("a subscription crosses tenants", "event_bus/group.py", "and (self.tenant is None or self._tenant_of(event) == self.tenant)", "", f"{BUS} -k 'listened_to_alone or theirs'"),
    Mutant("a subscription crosses users", "event_bus/group.py", "            and (self.user_id is None or event.user_id == self.user_id)\n", "", f"{BUS} -k theirs"),
    Mutant("ids of all tenants are one", "event_bus/consumer.py", """return f"{quote(event.tenant or DEFAULT_TENANT, safe='')}/{quote(event.source, safe='')}/{event.id}\"""", "return event.id", f"{WHOSE} -k hide_nothing"),
    Mutant("a conflict is not told", "event_bus/consumer.py", "                    self._tell_conflict(event)\n", "                    pass\n", f"{WHOSE} -k other_contents"),
    Mutant("seals are not looked at", "event_bus/cloud_event.py", "        seal.check(content)\n", "        pass\n", f"{WHOSE} -k seal"),
    Mutant("a seal is for any log", "event_bus/event_seal.py", "json.dumps([self._log, attributes]", "json.dumps([attributes]", f"{WHOSE} -k every_attribute"),
    Mutant("a GitHub delivery names the event", "triggers/webhook.py", 'hashlib.sha256(body).hexdigest() if hook.signature == "github" else', 'headers.get("x-github-delivery", "") if hook.signature == "github" else', f"{TRIGGERS} -k starts_an_agent_once"),
    Mutant("batches have no owner", "batch/journal/owned.py", "        if not self._may_use(await self._journal.get(execution_id)):\n", "        if False:\n", f"{OWNERS} -k batch"),
    Mutant("ids of batches are one namespace", "batch/journal/owned.py", 'return f"{quoted(self._principal.tenant)}.{name}"', "return name", f"{OWNERS} -k batch"),
    Mutant("dead letters have no owner", "event_bus/owned_dead_letters.py", "(letter.tenant or DEFAULT_TENANT) == self._principal.tenant and", "True or", f"{OWNERS} -k letters"),
    Mutant("recordings have no owner", "replay/recording.py", "and may_use(principal, each.user_id or \"\")", "", f"{OWNERS} -k recorded"),
    Mutant("poison is for all callers", "pool/poison.py", "(principal.tenant, principal.id, task_id)", '("", "", task_id)', f"{OWNERS} -k put_aside"),
    Mutant("key records are not signed", "auth/api_keys.py", " or not self.is_signed(record)):", "):", f"{KEYS} -k 'changes_no_key and memory'"),
    Mutant("successors are not asked about", "auth/api_keys.py", "if successors and with_successors is None:", "if False:", f"{KEYS} -k 'successors and memory'"),
    Mutant("keys are remembered by the wall clock", "auth/api_keys.py", "        now = self._monotonic()\n", "        now = self._clock()\n", f"{KEYS} -k 'within_five and memory'"),
    Mutant("an unreadable key file is trusted for ever", "auth/jwt.py", "if now - self._read_at >= STALE_AFTER_S:", "if False:", f"{JWT} -k refuses_after"),
    Mutant("an unreadable key file is not told", "auth/jwt.py", "            if was_readable:\n", "            if False:\n", f"{JWT} -k refuses_after"),
    Mutant("an empty list of keys changes nothing", "auth/jwt.py", "_keys_of(loads_unique(content), may_be_empty=True)", "_keys_of(loads_unique(content))", f"{JWT} -k without_keys"),
    Mutant("look-alike names are names", "auth/identities.py", "if len(scripts) > 1 and not", "if False and not", "auth/test_identities.py -k token"),
    Mutant("the runtime's names are given out", "auth/identities.py", "return user == OPERATOR or user.startswith(_RESERVED_PREFIXES)", "return False", "auth/test_identities.py"),
    Mutant("a link is followed", "stores/file_safety.py", "if stat.S_ISLNK(status.st_mode):", "if False:", "stores/test_file_safety.py -k link"),
    Mutant("files of others are used", "stores/file_safety.py", "if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):", "if False:", "stores/test_file_safety.py -k may_write"),
    Mutant("calls of an answer are counted one by one", f"{O}/answer_bounds.py", "    run.check_calls(len(pending) - len(too_deep) - len(too_many))\n", "", f"{BOUNDS} -k no_call_of"),
    Mutant("an answer has any number of calls", f"{O}/answer_bounds.py", "[most:]", "[len(pending) :]", f"{BOUNDS} -k beyond_the_bound"),
    Mutant("arguments are nested at will", f"{O}/answer_bounds.py", "        level = inner\n    return True", "        level = inner\n    return False", f"{BOUNDS} -k stored"),
    Mutant("confinement comes after the servers", "agent_keys.py", "        if self.confinement is not None:\n", "        if False:\n", "template/test_confinement.py -k 'nothing_that_is_not_listed or caller_is_held'"),
    Mutant("paths are compared as text", "template/confinement.py", "resolved = Path(os.path.realpath(Path(value).expanduser()))", "resolved = Path(os.path.abspath(Path(value).expanduser()))", "template/test_confinement.py -k link"),
    Mutant("an address is compared by its beginning", "template/confinement.py", "if (one.scheme, one.netloc) != (other.scheme, other.netloc)", 'if not address.startswith(allowed.rstrip("/"))', "template/test_confinement.py -k by_its_parts"),
    Mutant("variables reach prompts", "template/loader.py", "        if is_prompt or is_default or is_described:\n", "        if False:\n", "template/test_confinement.py -k reaches_no_prompt"),
    Mutant("errors are not masked", "errors/base.py", "SECRETS.text(each) if isinstance(each, str) else each", "each", f"{REDACTION} -k caller_sees"),
    Mutant("escapes hide a secret", "secret_forms.py", "_letters(_ESCAPED.sub(_decoded, text)) if _has_escapes(text) else _letters(text)", "_letters(text)", f"{REDACTION} -k every_form"),
    Mutant("the quick look passes short secrets over", "secret_forms.py", '(4, "I", self._short)', '(4, "I", {})', f"{REDACTION} -k quick_look"),
    Mutant("a record in another's place is taken", "auth/api_keys.py", "if record is None or record.id != key_id:", "if record is None:", f"{KEYS} -k another_s_place"),
    Mutant("what names no tenant is the default's", "event_bus/group.py", "return event.tenant if self.is_named else event.tenant or DEFAULT_TENANT", "return event.tenant or DEFAULT_TENANT", f"{BUS} -k no_tenant"),
    Mutant("roles are guessed", f"{O}/caller_input.py", "            value = convert_to_messages([cast(\"Any\", value)])[0]\n", "            return None\n", f"{SENT} -k another_role"),
    Mutant("states of classes have no roles", f"{O}/caller_input.py", "    elif dataclasses.is_dataclass(value) and not isinstance(value, type):", "    elif False:", f"{SENT} -k another_role"),
    Mutant("an edit calls another tool", f"{O}/conversation.py", 'edited.get("name", name) != name', "False", "scenarios/test_held_attacks.py -k other_tool"),
    Mutant("callables of a config are believed", f"{O}/reserved.py", "and around.get(key) is not None ", "", "scenarios/test_held_attacks.py -k config_answers"),
    Mutant("the content alone is reserved", f"{M}/request.py", "        for name in _SENT:\n", "        for name in ():\n", "scenarios/test_held_attacks.py -k client_sends"),
    Mutant("anybody makes a fork", "replay/runs.py", "if principal is not None and from_step is not None:", "if False:", f"{OWNERS} -k recorded"),
    Mutant("a program's environment is anybody's", "template/reach.py", '            if kind == "env":', '            if kind == "x":', "template/test_confinement.py -k environment"),
    Mutant("a confined template reads the environment", "factory.py", "        self._environ = {name: os.environ[name] for name in confinement.variables if name in os.environ}\n", "", "template/test_confinement.py -k quotes_no_variable"),
    Mutant("journals of a file are not looked at", "stores/sqlite_file.py", 'for suffix in ("", "-wal", "-shm", "-journal"):', 'for suffix in ("",):', "stores/test_file_safety.py -k journal"),
    Mutant("an escape hides a secret's letters", "secret_forms.py", "    if _has_escapes(text):\n        yield", "    if False:\n        yield", f"{REDACTION} -k every_form"),
    Mutant("a stream goes on after a swallowed cancel", f"{M}/model_call.py", "            self.cancels.check()\n", "            pass\n", "scenarios/test_swallowed_cancel.py -k stream"),
    Mutant("a cancelled call begins another one", f"{M}/run.py", "if run.context.progress.is_cancelled:  #", "if False:  #", "scenarios/test_swallowed_cancel.py -k begins_nothing"),
    Mutant("a state's own class is lost", f"{O}/bare_agent.py", " and agent._output_mapper is None", "", "scenarios/test_value_of_a_unary_call.py"),
    Mutant("one answer for every question", f"{O}/conversation.py", "if len(interrupts) > 1 and questions:", "if False:", "scenarios/reports/test_parallel_interrupts.py"),
    Mutant("an id that is not pending is ignored", f"{O}/conversation.py", "if unknown := [key for key in decision if key not in pending]:", "if unknown := []:", "scenarios/reports/test_parallel_interrupts.py"),
    Mutant("a stream keeps the last question", f"{O}/parts.py", "self.interrupts += new", "self.interrupts = new", "scenarios/reports/test_two_questions_in_a_stream.py"),
    Mutant("a structured answer is not checked", "template/response_schema.py", "        if faults:", "        if False:", "test_factory.py -k does_not_fit_its_schema"),
    Mutant("a schema may point elsewhere", "template/json_schema.py", 'if not each.startswith("#")', "if False", "test_factory.py -k points_elsewhere"),
    Mutant("LangChain makes a summarizer by its name", "registry.py", '"first_model", "summarizer")', '"first_model")', "template/test_templates_of_others.py -k every_argument"),
    Mutant("any width is a prompt's", "assembly.py", 'if any(field != ["messages", "", None] for field in fields):', "if False:", "template/test_templates_of_others.py -k arguments_of_middleware"),
    Mutant("a template's budget stands in", f"{O}/middleware/cost.py", "self._sources = (tuple(budgets), tuple(more_budgets))", "self._sources = (self.budgets,)", "template/test_templates_of_others.py -k never_instead"),
    Mutant("a template's limits are everybody's", "pipeline.py", 'return dataclasses.replace(limit, per=("template",)', 'return limit if limit else dataclasses.replace(limit, per=("template",)', "template/test_templates_of_others.py -k each_their_own"),
    Mutant("commands are joined texts", "template/confinement.py", "shlex.split(allowed) == shlex.split(reach.value)", 'allowed == reach.value.replace("\'", "")', "template/test_templates_of_others.py -k word_by_word"),
    Mutant("a program starts where its author likes", "template/confinement.py", 'return _is_inside(reach.value, self.roots)', 'return True', "template/test_templates_of_others.py -k word_by_word"),
    Mutant("a name belongs to its last template", "components.py", "        if folder != template.folder:", "        if False:", "template/test_templates_of_others.py -k same_name"),
    Mutant("a name is an agent", "sessions/agent_record.py", '        parts.append("folder")', "        pass", "template/test_templates_of_others.py -k same_name"),
    Mutant("a template has any number of files", "template/document.py", "if self._count > MAX_FILES:", "if False:", "template/test_templates_of_others.py -k so_many_files"),
    Mutant("every unknown key is explained", "template/loader.py", '[:MAX_SUGGESTIONS]', "", "template/test_templates_of_others.py -k refused_soon"),
    Mutant("a FIFO is read", "bounded_file.py", "if not stat.S_ISREG(os.fstat(descriptor).st_mode):", "if False:", "template/test_templates_of_others.py -k sane_size"),
    Mutant("a batch names files", "batch/caller_rules.py", "if is_path(name):", "if False:", "batch/test_owners.py -k neither_files"),
    Mutant("a batch runs any agent", "batch/caller_rules.py", '        self._factory.check_scopes(self._principal, "run", template)\n', "", "batch/test_owners.py -k neither_files"),
    Mutant("a batch gives paths", "batch/caller_rules.py", 'schema.get("format") == "path"', "False", "batch/test_owners.py -k a_path_among"),
    Mutant("parts of two states are one", "sessions/checkpoint_steps.py", "if content[4:] and", "if False and", "sessions/test_spliced.py -k an_approval"),
    Mutant("the checkpoint knows no agent", f"{O}/conversation.py", "if asked_by != name:", "if False:", "sessions/test_spliced.py -k agent_that_asked"),
    Mutant("a script is sent by its hash alone", "stores/redis_server.py", "answer = (await _sent(client, [request]))[0]", "raise", "stores/test_redis_scripts.py"),
    Mutant("cut arguments are the whole", f"{M}/model_call.py", "            self.run.note_arguments(self._arguments)", "            pass", "scenarios/reports/test_unreadable_arguments.py -k cut"),
    Mutant("unreadable arguments are dropped", f"{O}/answer_bounds.py", "unreadable = _unreadable(answer, run)", "unreadable = []", "scenarios/reports/test_unreadable_arguments.py"),
    Mutant("structured content is nobody's", "mcp/answers.py", "if structured is not None and (not content or", "if False and (not content or", "scenarios/reports/test_mcp_structured.py"),
    Mutant("running totals add up", f"{M}/model_call.py", "usage if _is_running_total(usage, self._last_usage) else", "usage if False else", "scenarios/reports/test_usage_on_every_chunk.py"),
    Mutant("an id stays unreadable for good", f"{M}/run.py", "                self.unreadable.pop(call_id, None)", "                pass", "scenarios/reports/test_unreadable_arguments.py -k used_again"),
    # What comes in and goes out: bounds, gaps, schemas, escapes, shapes, waits.
    Mutant("a place of another count is taken for one of this", "event_bus/bus.py", "if seq is None or seq > last:", "if seq is None:", f"{BUS} -k number_above"),
    Mutant("an id of another bus is read by its number", "event_bus/bus.py", "return int(seq) if any(", "return int(seq) if True or any(", f"{BUS} -k restarted_process"),
    Mutant("a missing number is not counted", "event_bus/sequence_gaps.py", "self.missing += len(gap)", "pass", f"{CONSUMER} -k missing_in_a_stream"),
    Mutant("a stream is acknowledged out of order", "event_bus/consumer.py", "stream not in self._waiting and not self._filter", "not self._filter", f"{CONSUMER} -k in_order_also"),
    Mutant("numbers of another consumer are missing", "event_bus/consumer.py", "self._gaps.begin()", "pass", f"{CONSUMER} -k no_number_is_missing"),
    Mutant("the last of two names counts", "strict_json.py", "if len(value) != len(pairs):", "if False:", "scenarios/test_double_names.py"),
    Mutant("rows behind an open quote are not said", "tools/csv_data.py", "if swallowed:", "if False:", "tools/test_tools.py -k cannot_be_read_as"),
    Mutant("patterns may take for ever", "template/json_schema.py", '"pattern_options": patterns, ', "", "template/test_schemas.py -k linear_time"),
    Mutant("a schema may contradict itself", "template/json_schema.py", "if _combinations(schema) > MAX_COMBINATIONS:", "if True:", "template/test_schemas.py -k contradicts_itself_is_refused"),
    Mutant("a default may be of another type", "template/json_schema.py", 'if isinstance(each, dict) and "default" in each', 'if False and "default" in each', "template/test_schemas.py -k contradicts_itself_is_refused"),
    Mutant("a grace may be longer than its task", "pool/config.py", "settings.grace > limit_s", "False", f"{POOL} -k configurations_are_checked"),
    Mutant("a rule's rate is not looked at", "triggers/rules.py", "                RateLimit(rate)\n", "                pass\n", f"{TRIGGERS} -k cannot_work"),
    Mutant("a result of any size is taken", "tools/result_bound.py", "if len(data) <= self.text:", "if True:", "tools/test_result_bound.py -k fifty"),
    Mutant("an error's text has no bound", "tools/gated_tool.py", "return bound_result(tool, await inner(tool, tool_input, *args, **kwargs))", "return await inner(tool, tool_input, *args, **kwargs)", "tools/test_result_bound.py -k every_form"),
    Mutant("a line of any length is held", "batch/sources.py", "if len(line) <= MAX_LINE:", "if True:", "batch/test_sources.py -k too_long"),
    Mutant("a bound of the environment is not read", "size_limits.py", "return parsed(name, text) if text else", "return", "test_settings.py -k taken_from_the_environment"),
    Mutant("control characters are printed", "escapes.py", "return character.isprintable() or", "return True or", "scenarios/test_escapes.py"),
    Mutant("each call waits for a locked file anew", "stores/sqlite_file.py", "if self._is_locked or waited_s >= full_s:", "if waited_s >= full_s:", "stores/test_locked_file.py -k stays_locked"),
    Mutant("waits for a locked file add up", "stores/sqlite_file.py", "self._set_wait(time.monotonic() - asked_s)", "self._is_locked = False", "stores/test_locked_file.py -k wait_for_each_other"),
    Mutant("a ledger is asked again however long it takes", "monitoring/ledger_trips.py", "if time.monotonic() + wait_s > until_s:\n                raise\n            await", "if False:\n                raise\n            await", "stores/test_locked_file.py -k within_one_wait"),
    Mutant("an answer fails with its ledger", "cli/state.py", "        except StoreError as error:", "        except KeyError as error:", "cli/test_sessions_command.py -k answer_stands"),
    Mutant("a decision is not paid", "cli/sessions.py", "session_manager=manager, **shared_seats()", "session_manager=manager", "cli/test_sessions_command.py -k counted_recorded"),
    Mutant("stored bytes of any shape are used", "sessions/blobs.py", "if not has_shape(value):", "if False:", "sessions/test_shapes.py"),
    Mutant("bytes behind a value are ignored", "sessions/codec.py", "if end != _MARK:", "if False:", "sessions/test_shapes.py -k bytes_behind"),
    Mutant("a message of number -1 is the last class", "sessions/message_rows.py", "if number < 0 or not isinstance", "if not isinstance", "sessions/test_shapes.py -k no_class_has"),
    Mutant("metadata has tuples", "sessions/blobs.py", "n: _listed(v) if", "n: v if", f"{SAVERS} -k metadata_is_json"),
    Mutant("an answer's class is unknown to its session", f"{O}/bare_agent.py", "        allow_answers(agent)\n", "", "scenarios/reports/test_structured_output_in_session.py"),
    # What the next reader found there.
    Mutant("all faults of a value are collected", "template/json_schema.py", "if _is_small(plain, MAX_ALL_FAULTS):", "if True:", "template/test_schemas.py -k very_many_faults"),
    Mutant("a search for contradictions unfolds", "template/json_schema.py", "combinations *= max(1, size)", "pass", "template/test_schemas.py -k unfold"),
    Mutant("a number is made into as many bytes", "sessions/plain_types.py", "if type(stored) is not kind:", "if False:", "sessions/test_shapes.py -k own_form"),
    Mutant("references to any numbers", "sessions/chunk_refs.py", "if any(not 0 <= first <= last < MAX_NUMBER for first, last in numbers):", "if False:", "sessions/test_shapes.py -k cannot_be"),
    Mutant("a subscriber learns another user's count", "event_bus/bus.py", "None if wanted.user_id is not None else self._counter_of(wanted)", "self._counter_of(wanted)", f"{BUS} -k no_count"),
    Mutant("small parts have no bound", "tools/result_bound.py", "if is_text and self.text <= PART_BYTES:", "if False:", "tools/test_result_bound.py -k many_small"),
    Mutant("what stands beside a text has no bound", "tools/result_bound.py", "        if not extras:\n", "        if True:\n", "tools/test_result_bound.py -k nothing_passes"),
    Mutant("one number far ahead is believed", "event_bus/sequence_gaps.py", "if len(gap) > MAX_JUMP and not stream.has_jumped:", "if False:", f"{CONSUMER} -k far_ahead"),
    Mutant("a traceback is printed raw", "cli/main.py", 'echo(SECRETS.text("".join(traceback.format_exception(error))), err=True)', "raise", "scenarios/test_escapes.py -k traceback"),
    Mutant("rules' sessions have one id", "triggers/rules.py", 'if each.startswith(f"{name}-")', "if False", f"{TRIGGERS} -k cannot_work"),
    Mutant("a path hides among keys", "template/reach.py", "return [*map(str, value), *", "return [*", "template/test_confinement.py -k among_the_keys"),
]  # fmt: skip


def survives(mutant: Mutant, folder: Path) -> bool:
    """Whether the named test passes on the broken code, which it must not."""
    source = folder / "src"
    shutil.copytree(ROOT / "src", source)
    (folder / "templates").symlink_to(ROOT / "templates")
    path = source / "agent_runtime" / mutant.file
    text = path.read_text()
    if mutant.old not in text:
        raise SystemExit(f"'{mutant.breaks}': the text to replace is gone from {mutant.file}")
    path.write_text(text.replace(mutant.old, mutant.new))
    test = str(ROOT / "tests" / "agent_runtime" / mutant.test.split(" ")[0])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n0",
        "-x",
        "--timeout=60",
        "-p",
        "no:cacheprovider",
        "-m",
        "",
        test,
    ]
    try:
        done = subprocess.run(
            [*command, *shlex.split(mutant.test)[1:]],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(source)},
            capture_output=True,
            text=True,
            check=False,
            timeout=HANGS_S,
        )
    except subprocess.TimeoutExpired:  # it hangs beyond the test's own time limit: in CI that is noticed, too
        return False
    finally:
        end_processes_of(source)
    if done.returncode not in (0, 1):
        raise SystemExit(f"'{mutant.breaks}': the test did not run\n{done.stdout[-2000:]}")
    return done.returncode == 0


def end_processes_of(source: Path) -> None:
    """Kill what runs the broken code still: a mutant of the clean-up leaves workers that would burn a core."""
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            if f"PYTHONPATH={source}".encode() in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


def main(only: str = "") -> int:
    """Print a line for each mutant of a file whose path contains `only`; 1 when one survives."""
    alive, chosen = [], [m for m in MUTANTS if only in m.test or only in m.file]
    for mutant in chosen:
        with tempfile.TemporaryDirectory() as folder:
            survived = survives(mutant, Path(folder))
        print(f"{'SURVIVED' if survived else 'killed  '}  {mutant.breaks}", flush=True)
        alive += [mutant.breaks] if survived else []
    print(f"{len(chosen) - len(alive)} of {len(chosen)} mutants killed")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
