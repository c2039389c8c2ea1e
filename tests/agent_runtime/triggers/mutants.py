"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant

MUTANTS = [
    Mutant(
        "a circle of triggers runs on",
        "test_rules.py -k circle",
        Change(
            "triggers.handler:TriggerHandler._start_agent", "event.depth >= rule.max_depth", "False"
        ),
    ),
    Mutant(
        "depth is not passed on",
        "test_rules.py -k circle",
        Change(
            "triggers.handler:TriggerHandler._start_agent",
            "Cause(event.id, event.depth + 1)",
            "None",
        ),
    ),
    Mutant(
        "any truthy condition holds",
        "test_rules.py -k starts_nothing",
        Change(
            "triggers.expressions:is_condition_met",
            "evaluate(condition, facts) is True",
            "bool(evaluate(condition, facts))",
        ),
    ),
    Mutant(
        "a rule's rate is nobody's",
        "test_rules.py -k rules_rate",
        Change("triggers.handler:create_rule_agent", "rule.rate is not None", "False"),
    ),
    Mutant(
        "webhooks are not signed",
        "test_rules.py -k not_good",
        Change(
            "triggers.webhook:WebhookApp._handle_request",
            "not is_signature_valid(hook, key, headers, body)",
            "False",
        ),
    ),
    Mutant(
        "old signatures are good",
        "test_rules.py -k not_good",
        Change(
            "triggers.webhook:is_signature_valid",
            "abs(time.time() - int(timestamp)) > MAX_AGE_S",
            "False",
        ),
    ),
    Mutant(
        "a GitHub delivery names the event",
        "test_rules.py -k starts_an_agent_once",
        Change(
            "triggers.webhook:_event_id",
            "hashlib.sha256(body).hexdigest()",
            "headers.get('x-github-delivery', '')",
        ),
    ),
    Mutant(
        "a rule's rate is not looked at",
        "test_rules.py -k cannot_work",
        Change("triggers.rules:TriggerRule._check_rate", "RateLimit(rate)", "pass"),
    ),
    Mutant(
        "rules' sessions have one id",
        "test_rules.py -k cannot_work",
        Change("triggers.rules:session_clash", "other_name.startswith(f'{name}-')", "False"),
    ),
    Mutant(
        "rules on older names match nothing",
        "test_rules.py -k older_names",
        Change(
            "triggers.expressions:event_facts",
            "with_older_names(event.type, to_jsonable(event.data))",
            "to_jsonable(event.data)",
        ),
    ),
]
