"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant, TextChange

MUTANTS = [
    Mutant(
        "a budget ignores what is held",
        "../budgets/ledger/test_memory.py -k on_every_account",
        Change("budgets.ledger.ledger:Balance.remaining", "usd - self.spent_micro_usd", "usd"),
        Change(
            "budgets.ledger.ledger:Balance.remaining", "self.held_micro_usd", "self.spent_micro_usd"
        ),
    ),
    Mutant(
        "a budget on Redis ignores what is held",
        "../budgets/ledger/test_redis.py -k as_the_one_in_memory",
        TextChange(
            "budgets.ledger.redis",
            "tonumber(limit) - b[1] - b[2] + backUsd)",
            "tonumber(limit) - b[1] + backUsd)",
        ),
    ),
    Mutant(
        "settling twice charges twice",
        "../budgets/ledger/test_memory.py -k repeated",
        Change(
            "budgets.ledger.rules:LedgerRules._settle",
            "existing is not None and existing.state == 'settled'",
            "existing is not None and existing.state == 'settled' and False",
        ),
    ),
    Mutant(
        "an abandoned hold is free",
        "../budgets/ledger/test_memory.py -k abandoned",
        Change(
            "budgets.ledger.rules:LedgerRules.expire_holds",
            "operation.amount",
            "ZERO_AMOUNT",
            only=(0,),
        ),
    ),
    Mutant(
        "money: holds are ignored under kills and losses",
        "../scenarios/test_money_across_processes.py -k no_kill",
        TextChange(
            "budgets.ledger.redis",
            "tonumber(limit) - b[1] - b[2] + backUsd)",
            "tonumber(limit) - b[1] + backUsd)",
        ),
    ),
    Mutant(
        "a window on Redis forgets too soon",
        "../limits/test_rate_limits.py",
        TextChange("limits.windows", "ARGV[2 * n] * 1000000 or 0", "ARGV[2 * n] * 500000 or 0"),
    ),
    Mutant(
        "extra fields are not masked",
        "test_logs.py -k redacted",
        Change("monitoring.logs:JsonFormatter.format", "self._redactor.value(entry)", "entry"),
    ),
    Mutant(
        "a hanging sink stalls its caller",
        "test_logs.py -k hangs",
        Change(
            "monitoring.logs:LogSink.emit",
            "self._lines.put_nowait(line)",
            "self._lines.put(line, timeout=1)",
        ),
    ),
    Mutant(
        "metrics grow without bound",
        "test_metrics.py -k fifty_thousand",
        Change(
            "monitoring.series:Series._add_cell",
            "len(self._cells) >= self._max_cells - 1 and label_values not in self._cells",
            "False",
        ),
    ),
    Mutant(
        "secrets in labels",
        "test_metrics.py -k labels",
        Change("monitoring.series:Series._add_cell", "SECRETS.text", "str"),
        Change("monitoring.series:Series._add_cell", "str(value)", "value"),
    ),
    Mutant(
        "a lapsed reservation is charged and held",
        "../budgets/ledger/test_sqlite.py -k after_its_lease",
        Change(
            "budgets.ledger.rules:LedgerRules._reserve",
            "self._charge(expired, Amount(-expired.amount.micro_usd, -expired.amount.tokens), ZERO_AMOUNT, [])",
            "pass",
        ),
    ),
    Mutant(
        "a reservation after its end is granted",
        "../budgets/ledger/test_sqlite.py -k after_its_settlement",
        Change("budgets.ledger.rules:LedgerRules._reserve", "existing.state == 'held'", "True"),
    ),
    Mutant(
        "what was paid is paid again",
        "../budgets/ledger/test_memory.py -k idempotent",
        Change(
            "budgets.ledger.rules:LedgerRules._reserve",
            "if existing.state == 'settled' and existing.amount != ZERO_AMOUNT:\n    return (request.requested, None)",
            "pass",
        ),
    ),
    Mutant(
        "a refusal gives back",
        "../scenarios/test_ledger_names.py",
        Change(
            "budgets.ledger.rules:LedgerRules._reserve",
            "return (None, self._refusal(account.key))",
            "if expired is not None:\n    self._charge(expired, Amount(-expired.amount.micro_usd, 0), ZERO_AMOUNT, [])\nreturn (None, self._refusal(account.key))",
        ),
    ),
    Mutant(
        "an estimate is the last word",
        "../scenarios/test_ledger_names.py",
        Change(
            "budgets.ledger.rules:LedgerRules._settle",
            "self._top_up(existing, settlement, now, charges)",
            "pass",
        ),
    ),
    Mutant(
        "an address that begins alike is the provider",
        "../budgets/test_prices.py -k who_bills",
        Change("budgets.model_names:provider_of", "match.end() == len(address)", "True"),
    ),
    Mutant(
        "a budget of one is for all",
        "../scenarios/test_limits_that_match.py -k exactly",
        Change(
            "budgets.budget:Budget.is_for",
            "self.only in (None, scope_name) and self.tenant in (None, caller.tenant) and (self.user in (None, caller.user))",
            "self.only in (None, scope_name) and self.tenant in (None, caller.tenant)",
        ),
    ),
    Mutant(
        "a budget matches quoted names",
        "../scenarios/test_limits_that_match.py -k holds_for",
        Change(
            "budgets.budget:Budget.is_for",
            "caller.tenant",
            "part_name('tenant', caller)",
            only=(1,),
        ),
    ),
    Mutant(
        "the general budget counts, too",
        "../scenarios/test_limits_that_match.py -k most_names",
        Change(
            "budgets.budget:accounts_of",
            "budget.scope == 'run' or budget.names < max_name_counts[budget.scope, budget.per]",
            "budget.scope == 'run'",
        ),
    ),
    Mutant(
        "a budget for nobody is taken",
        "../scenarios/test_limits_that_match.py -k no_call",
        Change(
            "budgets.budget:Budget.__post_init__",
            "(fault := fault_of_names(self.scope, self.only, self.tenant, self.user)) is not None",
            "False",
        ),
    ),
    Mutant(
        "a caller without a key is not counted",
        "../scenarios/test_limits_that_match.py -k without_a_key",
        Change("auth.caller_names:part_name", "f'user:{user}'", "None"),
    ),
]
