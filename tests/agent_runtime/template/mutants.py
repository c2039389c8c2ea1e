"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant

MUTANTS = [
    Mutant(
        "aliases allowed",
        "test_yaml_reader.py -k T-06",
        Change(
            "template.yaml_reader:_NodeBuilder._node", "isinstance(event, yaml.AliasEvent)", "False"
        ),
    ),
    Mutant(
        "links followed out of the folder",
        "test_yaml_reader.py -k link",
        Change(
            "template.document:Document.find_beside",
            "not candidate.resolve().is_relative_to(self.root)",
            "False",
        ),
    ),
    Mutant(
        "secrets accepted",
        "test_yaml_reader.py -k T-41",
        Change("template.document:Document._fill", "_SECRET.search(text)", "False"),
    ),
    Mutant(
        "a misspelt tool needs no approval",
        "../factory/test_tool_names.py",
        Change(
            "factory.tool_names:ToolNames.resolve",
            "raise ConfigurationError(self.unknown_message(name))",
            "return",
        ),
    ),
    Mutant(
        "confinement comes after the servers",
        "test_confinement.py -k 'nothing_that_is_not_listed or caller_is_held'",
        Change(
            "factory.cache_keys:AgentCacheKeys.resolve_inputs",
            "self.confinement is not None",
            "False",
        ),
    ),
    Mutant(
        "paths are compared as text",
        "test_confinement.py -k link",
        Change("template.confinement:_is_inside", "os.path.realpath", "os.path.abspath", only=(0,)),
    ),
    Mutant(
        "an address is compared by its beginning",
        "test_confinement.py -k by_its_parts",
        Change(
            "template.confinement:_covers",
            "(allowed_parts.scheme, allowed_parts.netloc) != (address_parts.scheme, address_parts.netloc)",
            "not address.startswith(allowed.rstrip('/'))",
        ),
    ),
    Mutant(
        "variables reach prompts",
        "test_confinement.py -k reaches_no_prompt",
        Change(
            "template.loader:_variables_in_prompts",
            "is_prompt or is_default or is_described",
            "False",
        ),
    ),
    Mutant(
        "a program's environment is anybody's",
        "test_confinement.py -k environment",
        Change("template.reach:_server_reaches", "'env'", '"""x"""', only=(1,)),
    ),
    Mutant(
        "a confined template reads the environment",
        "test_confinement.py -k quotes_no_variable",
        Change(
            "template.confinement:confined_environ",
            "{name: os.environ[name] for name in confinement.variables if name in os.environ}",
            "None",
        ),
    ),
    Mutant(
        "LangChain makes a summarizer by its name",
        "../scenarios/test_templates_of_others.py -k every_argument",
        Change("registry:", "('model', 'first_model', 'summarizer')", "('model', 'first_model')"),
    ),
    Mutant(
        "any width is a prompt's",
        "../scenarios/test_templates_of_others.py -k arguments_of_middleware",
        Change(
            "factory.build_agent:_check_summary_prompt",
            "any((field != ['messages', '', None] for field in fields))",
            "False",
        ),
    ),
    Mutant(
        "a template's budget stands in",
        "../scenarios/test_templates_of_others.py -k never_instead",
        Change(
            "orchestration.middleware.cost:CostTrackingMiddleware.__init__",
            "(tuple(budgets), tuple(more_budgets))",
            "(self.budgets,)",
        ),
    ),
    Mutant(
        "a template's limits are everybody's",
        "../scenarios/test_templates_of_others.py -k each_their_own",
        Change(
            "factory.build_pipeline:_scoped_to_template",
            "dataclasses.replace(limit, per=('template',) if per == ('global',) else (*per, 'template'))",
            "limit if limit else dataclasses.replace(limit, per=('template',) if per == ('global',) else (*per, 'template'))",
        ),
    ),
    Mutant(
        "commands are joined texts",
        "../scenarios/test_templates_of_others.py -k word_by_word",
        Change("template.confinement:Confinement.allows", "shlex.split(allowed)", "allowed"),
        Change(
            "template.confinement:Confinement.allows",
            "shlex.split(reach.value)",
            "reach.value.replace(\"'\", '')",
        ),
    ),
    Mutant(
        "a program starts where its author likes",
        "../scenarios/test_templates_of_others.py -k word_by_word",
        Change(
            "template.confinement:Confinement.allows", "_is_inside(reach.value, self.roots)", "True"
        ),
    ),
    Mutant(
        "a name belongs to its last template",
        "../scenarios/test_templates_of_others.py -k same_name",
        Change(
            "factory.template_registry:TemplateRegistry._check_owner",
            "folder != template.folder",
            "False",
        ),
    ),
    Mutant(
        "a name is an agent",
        "../scenarios/test_templates_of_others.py -k same_name",
        Change("sessions.agent_record:check_agent", "parts.append('folder')", "pass"),
    ),
    Mutant(
        "a template has any number of files",
        "../scenarios/test_templates_of_others.py -k so_many_files",
        Change("template.document:Document._resolve", "self._file_count > MAX_FILES", "False"),
    ),
    Mutant(
        "every unknown key is explained",
        "../scenarios/test_templates_of_others.py -k refused_soon",
        Change(
            "template.loader:template_problems",
            "[details for details in error_details if details['type'] == 'extra_forbidden'][:MAX_SUGGESTIONS]",
            "[details for details in error_details if details['type'] == 'extra_forbidden']",
        ),
    ),
    Mutant(
        "a FIFO is read",
        "../scenarios/test_templates_of_others.py -k sane_size",
        Change("bounded_file:open_regular", "stat.S_ISREG(os.fstat(descriptor).st_mode)", "True"),
    ),
    Mutant(
        "patterns may take for ever",
        "test_json_schema.py -k linear_time",
        Change(
            "template.json_schema:_options",
            "{'pattern_options': patterns, 'offline': True}",
            "{'offline': True}",
        ),
    ),
    Mutant(
        "a schema may contradict itself",
        "test_json_schema.py -k contradicts_itself_is_refused",
        Change(
            "template.json_schema:_contradictions",
            "combinations > MAX_COMBINATIONS or choices > MAX_CHOICES",
            "True",
        ),
    ),
    Mutant(
        "a default may be of another type",
        "test_json_schema.py -k contradicts_itself_is_refused",
        Change(
            "template.json_schema:_default_problems", "isinstance(property_schema, dict)", "False"
        ),
    ),
    Mutant(
        "all faults of a value are collected",
        "test_json_schema.py -k very_many_faults",
        Change(
            "template.json_schema:SchemaCheck.faults",
            "_is_small(plain, MAX_PARTS_FOR_ALL_FAULTS)",
            "True",
        ),
    ),
    Mutant(
        "a search for contradictions unfolds",
        "test_json_schema.py -k unfold",
        Change("template.json_schema:_search_size", "combinations *= max(1, size)", "pass"),
    ),
    Mutant(
        "a path hides among keys",
        "test_confinement.py -k among_the_keys",
        Change(
            "template.reach:_nested_keys",
            "[*map(str, value), *(key for nested_value in value.values() for key in _nested_keys(nested_value))]",
            "[*(key for element in value.values() for key in _nested_keys(element))]",
        ),
    ),
]
