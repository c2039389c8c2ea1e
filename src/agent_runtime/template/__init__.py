"""Read YAML into a checked `AgentTemplate`."""

from agent_runtime.template.builtin import builtin_folder, builtin_templates
from agent_runtime.template.inputs import render_prompt, resolve_inputs
from agent_runtime.template.loader import load_template, parse_template, unused_inputs
from agent_runtime.template.schema import SCHEMA_FILE, template_schema, template_schema_text
from agent_runtime.template.spec import AgentTemplate

__all__ = [
    "SCHEMA_FILE",
    "AgentTemplate",
    "builtin_folder",
    "builtin_templates",
    "load_template",
    "parse_template",
    "render_prompt",
    "resolve_inputs",
    "template_schema",
    "template_schema_text",
    "unused_inputs",
]
