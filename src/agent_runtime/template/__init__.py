"""Templates: YAML in, a checked `AgentTemplate` out."""

from agent_runtime.template.builtin import shipped_folder, shipped_templates
from agent_runtime.template.inputs import rendered_prompt, resolve_inputs
from agent_runtime.template.loader import load_template, parse_template, unused_inputs
from agent_runtime.template.schema import SCHEMA_FILE, template_schema, template_schema_text
from agent_runtime.template.spec import AgentTemplate

__all__ = [
    "SCHEMA_FILE",
    "AgentTemplate",
    "load_template",
    "parse_template",
    "rendered_prompt",
    "resolve_inputs",
    "shipped_folder",
    "shipped_templates",
    "template_schema",
    "template_schema_text",
    "unused_inputs",
]
