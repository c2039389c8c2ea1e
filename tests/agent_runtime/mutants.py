"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant

MUTANTS = [
    Mutant(
        "a rewriting hook streams",
        "factory/test_build_agent.py -k vouches",
        Change("factory.build_agent:", "('wrap_model_call', 'awrap_model_call')", "()"),
    ),
    Mutant(
        "any reference allowed",
        "factory/test_build_agent.py -k python_references",
        Change(
            "factory.build_agent:unknown_names",
            "check(f'{part_path}.tools.{i}.ref', 'tool', tool.ref, registry.allowed_refs)",
            "pass",
        ),
    ),
    Mutant(
        "PII streamed before it is redacted",
        "factory/test_build_agent.py -k pii",
        Change(
            "factory.build_agent:build_agent",
            "any((_may_rewrite_answer(m, registry) for m in spec.middleware))",
            "False and any((_may_rewrite_answer(m, registry) for m in spec.middleware))",
        ),
    ),
    Mutant(
        "registered secrets are not masked",
        "scenarios/test_canary.py -k traceback",
        Change("secrets.redaction:Redactor._mask", "text", '""""""', only=(2,)),
    ),
    Mutant(
        "encoded secrets are not masked",
        "secrets/test_redaction.py -k every_form",
        Change("secrets.forms:_base64_cores", "3", "0"),
    ),
    Mutant(
        "a misspelt setting is ignored",
        "test_settings.py -k at_once",
        Change(
            "settings:read_settings",
            "problems.append(f'unknown setting {display_name} ({source}): {close_matches(display_name, names)}')",
            "pass",
        ),
    ),
    Mutant(
        "a secret everybody may read",
        "test_settings.py -k secret_files",
        Change("secret_files:read_secret_file", "mode & stat.S_IROTH", "False"),
    ),
    Mutant(
        "a secret stands at the cut",
        "secrets/test_redaction.py -k cut",
        Change(
            "secrets.redaction:Redactor.text", "min(MAX_TEXT, len(masked) - MARGIN)", "MAX_TEXT"
        ),
    ),
    Mutant(
        "suspects are not looked for among small letters",
        "secrets/test_redaction.py -k passed_over",
        Change("secrets.redaction:Redactor.may_contain_secret", "text.casefold()", "text"),
    ),
    Mutant(
        "prod may forget",
        "test_settings.py",
        Change("settings:_volatile_store_problems", "address.is_in_memory", "False"),
    ),
    Mutant(
        "errors are not masked",
        "secrets/test_redaction.py -k caller_sees",
        Change(
            "errors.base:AgentRuntimeError.__init__",
            "SECRETS.text(argument) if isinstance(argument, str) else argument",
            "argument",
        ),
    ),
    Mutant(
        "escapes hide a secret",
        "secrets/test_redaction.py -k every_form",
        Change(
            "secrets.forms:normalize",
            "_lower_alphanumerics(_ESCAPED.sub(_decode_escape, text)) if _has_escapes(text) else _lower_alphanumerics(text)",
            "_lower_alphanumerics(text)",
        ),
    ),
    Mutant(
        "the quick look passes short secrets over",
        "secrets/test_redaction.py -k quick_look",
        Change("secrets.forms:SecretForms._candidates", "self._short", "{}"),
    ),
    Mutant(
        "an escape hides a secret's letters",
        "secrets/test_redaction.py -k every_form",
        Change("secrets.forms:_normalizations", "_has_escapes(text)", "False"),
    ),
    Mutant(
        "a structured answer is not checked",
        "factory/test_build_agent.py -k does_not_fit_its_schema",
        Change("template.response_schema:_core_schema.check", "faults", "False", only=(1,)),
    ),
    Mutant(
        "a schema may point elsewhere",
        "factory/test_build_agent.py -k points_elsewhere",
        Change("template.json_schema:external_refs", "not reference.startswith('#')", "False"),
    ),
    Mutant(
        "a bound of the environment is not read",
        "test_settings.py -k taken_from_the_environment",
        Change(
            "size_limits:size_limit",
            "parse_size_limit(name, text) if text else SIZE_LIMITS[name].default",
            "SIZE_LIMITS[name].default",
        ),
    ),
]
