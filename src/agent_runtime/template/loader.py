"""Load a template, and report all problems at once, with their locations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent_runtime.errors import Problem, TemplateError, close_matches
from agent_runtime.template.document import Document, locate, to_python
from agent_runtime.template.parts_spec import ToolSpec
from agent_runtime.template.prompt import placeholders
from agent_runtime.template.skills import Skill, read_skills
from agent_runtime.template.spec import AgentTemplate, is_path
from agent_runtime.template.yaml_reader import Mark

MAX_SUGGESTIONS = 20
"""Most unknown keys with suggestions: each costs milliseconds."""


def load_template(path: str | Path, *, environ: Mapping[str, str] | None = None) -> AgentTemplate:
    """Read a template file and everything it extends, includes or names as an agent tool.

    `environ` replaces `os.environ` for `${VAR}`. Raises TemplateError with all problems,
    FileNotFoundError (or another OSError) when the file itself cannot be read.
    """
    return _load(Path(path), None, environ, ())


def parse_template(
    text: str, *, folder: str | Path = ".", file: str = "<template>"
) -> AgentTemplate:
    """Load a template from text; `folder` contains the files it names."""
    return _load(Path(folder) / file, text.encode("utf-8", "surrogatepass"), None, ())


def unused_inputs(template: AgentTemplate) -> list[str]:
    """Return a warning for each input that is declared and never used.

    A base template may declare inputs for its children.
    """
    unused = sorted(template.input_names - template.used_inputs())
    return [f"input '{name}' is declared but no prompt or tool argument uses it" for name in unused]


def template_problems(error: ValidationError, document: Document | None = None) -> list[Problem]:
    """Return pydantic's errors in the template's terms and with its locations."""
    error_details = error.errors(include_input=False)
    unknown = [details for details in error_details if details["type"] == "extra_forbidden"][
        :MAX_SUGGESTIONS
    ]
    return [
        problem
        for details in error_details
        for problem in _problems_from(details, document, with_suggestions=details in unknown)
    ]


def _load(
    path: Path, data: bytes | None, environ: Mapping[str, str] | None, chain: tuple[Path, ...]
) -> AgentTemplate:
    document = Document(path, data, environ)
    try:
        template = AgentTemplate.model_validate(to_python(document.node))
    except ValidationError as error:
        raise TemplateError([*document.problems, *template_problems(error, document)]) from None
    template._folder = path.resolve().parent
    template._locate = lambda tools_path: _mark_at(document, _parse_path(tools_path))
    for tools_path, tools in _tools_with_path(template):
        for index, tool in enumerate(tools):
            if tool.agent is not None and is_path(tool.agent):
                _load_agent(
                    template,
                    (*tools_path, index, "agent"),
                    tool.agent,
                    document,
                    environ,
                    (*chain, path.resolve()),
                )
    _load_skills(template, document)
    document.problems += _variables_in_prompts(template, document)
    nested_templates = template.agents.values()
    template._files = tuple(
        sorted(
            {
                *document.files,
                *(file for nested_template in nested_templates for file in nested_template.files),
            }
        )
    )
    template._variables = tuple(
        sorted(
            {
                *document.variables,
                *(
                    name
                    for nested_template in nested_templates
                    for name in nested_template.variables
                ),
            }
        )
    )
    if document.problems:
        raise TemplateError(document.problems)
    _ = template.identity  # worked out here, once, not when the first agent is made
    return template


def _variables_in_prompts(template: AgentTemplate, document: Document) -> list[Problem]:
    """Return a problem for each secret that would reach a model or its provider."""
    prompt = template.spec.system_prompt
    used = placeholders(prompt)[0] if isinstance(prompt, str) else set()
    problems = []
    for steps, mark in document.variable_marks.items():
        is_prompt = steps[:2] == ("spec", "subagents") and steps[3:] in (
            ("system_prompt",),
            ("description",),
        )
        is_default = steps[:2] == ("inputs", "properties") and len(steps) > 3 and steps[2] in used
        is_described = steps in (("metadata", "description"),) or steps[:2] == (
            "spec",
            "response_format",
        )
        if is_prompt or is_default or is_described:
            path = ".".join(steps)
            problems.append(
                mark.problem(
                    "a variable's value would reach the model: no ${VAR} in a prompt", path
                )
            )
    return problems


def _tools_with_path(
    template: AgentTemplate,
) -> Iterator[tuple[tuple[str | int, ...], Sequence[ToolSpec]]]:
    yield ("spec", "tools"), template.spec.tools
    for n, subagent in enumerate(template.spec.subagents):
        yield ("spec", "subagents", n, "tools"), subagent.tools or ()


def _load_skills(template: AgentTemplate, document: Document) -> None:
    skills_by_name: dict[str, Skill] = {}
    for index, name in enumerate(template.spec.skills):
        mark = locate(document.node, ("spec", "skills", index))
        dotted_path = f"spec.skills.{index}"
        folder = document.find_beside(name, document.root, mark, dotted_path, kind="folder")
        if folder is None:
            continue
        skills, problems = read_skills(folder, document.root)
        document.problems.extend(mark.problem(problem, dotted_path) for problem in problems)
        # A skill that is added, or a link that leads elsewhere, is a change of the template too.
        document.files.update(
            watched_path
            for child in [folder, *folder.iterdir()]
            for watched_path in (child, child / "SKILL.md")
        )
        skills_by_name.update(
            {skill.name: skill for skill in skills}
        )  # the last source wins, as in deepagents
    template._skills = tuple(skills_by_name.values())


def _load_agent(
    template: AgentTemplate,
    agent_path: tuple[str | int, ...],
    name: str,
    document: Document,
    environ: Mapping[str, str] | None,
    chain: tuple[Path, ...],
) -> None:
    mark = locate(document.node, agent_path)
    dotted_path = ".".join(str(step) for step in agent_path)
    file = document.find_beside(name, document.root, mark, dotted_path)
    if file is None:
        return
    if file.resolve() in chain:
        cycle = " -> ".join(p.name for p in (*chain, file))
        document.problems.append(
            mark.problem(f"agents call each other in a circle: {cycle}", dotted_path)
        )
        return
    try:
        template._agents[name] = _load(file, None, environ, chain)
    except TemplateError as error:
        document.problems.extend(error.problems)


def _problems_from(
    details: Any, document: Document | None, *, with_suggestions: bool
) -> Iterator[Problem]:
    steps = tuple(s for s in details["loc"] if not _is_pydantic_step(s))
    kind = details["type"]
    if kind == "template":
        for path, message in details["ctx"]["found"]:
            yield _mark_at(document, _parse_path(path)).problem(message, path)
        return
    path = ".".join(str(s) for s in steps)
    if kind == "extra_forbidden":
        message = f"unknown key '{steps[-1]}'"
        if with_suggestions:
            message += f": {close_matches(str(steps[-1]), _keys_at(steps[:-1]))}"
    elif kind == "missing":
        message = f"key '{steps[-1]}' is required"
    else:
        message = details["msg"].removeprefix("Value error, ").removeprefix("Input ")
        message = message[:1].lower() + message[1:]
        if path == "metadata.name" and kind.startswith("string_"):
            message = (
                "a name has at most 64 letters, digits, '_', '-' and single '.', and "
                "starts with a letter or digit"
            )
    yield _mark_at(document, steps, key=kind == "extra_forbidden").problem(message, path)


def _is_pydantic_step(step: Any) -> bool:
    # pydantic puts the branch of a union and the name of a validator into the path: `str`,
    # `function-before[...]`.
    return isinstance(step, str) and (
        step in _UNION_STEPS or step.startswith(("function-", "dict[", "list["))
    )


_UNION_STEPS = frozenset(
    {"str", "int", "float", "FileRef", "SecretRef", "ToolSpec", "ModelSpec", "constrained-str"}
)


def _parse_path(path: str) -> tuple[Any, ...]:
    return tuple(int(s) if s.isascii() and s.isdecimal() else s for s in path.split("."))


def _mark_at(document: Document | None, path: tuple[Any, ...], *, key: bool = False) -> Mark:
    return Mark("<template>") if document is None else locate(document.node, path, key=key)


@cache
def _schema() -> dict[str, Any]:
    return AgentTemplate.model_json_schema(by_alias=True)


def _keys_at(path: tuple[Any, ...]) -> list[str]:
    """Return the keys that the schema allows at `path`."""
    schema = _schema()
    nodes = [schema]
    for step in path:
        nodes = [
            child
            for node in _expand_branches(schema, nodes)
            if (
                child := node.get("items")
                if isinstance(step, int)
                else node.get("properties", {}).get(step)
            )
            is not None
        ]
    return [key for node in _expand_branches(schema, nodes) for key in node.get("properties", {})]


def _expand_branches(schema: dict[str, Any], nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    branches: list[dict[str, Any]] = []
    queue = list(nodes)
    while queue:
        node = queue.pop()
        if "$ref" in node:
            queue.append(schema["$defs"][node["$ref"].rsplit("/", 1)[1]])
        queue += [*node.get("anyOf", []), *node.get("allOf", [])]
        branches.append(node)
    return branches
