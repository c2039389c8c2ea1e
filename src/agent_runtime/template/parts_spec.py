"""Define the parts of an agent's template: models, tools, MCP servers, sub-agents."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from agent_runtime.template.duration import Duration
from agent_runtime.template.runtime_spec import Count, StrictModel

REF_PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
TOOL_NAME = r"^[a-zA-Z0-9_-]{1,64}$"


class SecretRef(StrictModel):
    """Refer to a secret; a template never contains its value."""

    from_env: Annotated[str | None, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = None
    from_file: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> SecretRef:
        if (self.from_env is None) == (self.from_file is None):
            raise ValueError("give exactly one of from_env and from_file")
        return self


class ModelParams(StrictModel):
    """Configure what most providers support; a provider's own settings go under `extra`."""

    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    max_tokens: Count | None = None
    seed: int | None = None
    stop: list[str] | None = None
    extra: dict[str, Any] = {}


class AtOnceLimits(StrictModel):
    """Concurrency of the account behind a model's key, and signs of an overload."""

    max_in_flight: Annotated[
        Count | None, Field(description="Most concurrent calls; fewer after an overload.")
    ] = None
    overload_codes: Annotated[
        list[int | str],
        Field(description="A vendor's own error codes for an overload, such as 1302."),
    ] = []


class ModelSpec(StrictModel):
    """Which chat model.

    `provider:name` for `init_chat_model`, `offline:`, `auto`, or a registered name.
    """

    id: Annotated[str, Field(min_length=1)]
    params: ModelParams = ModelParams()
    base_url: str | None = None
    api_key: SecretRef | None = None
    fallbacks: list[str] = []
    limits: AtOnceLimits = AtOnceLimits()
    idempotency_header: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$",
            description="Header by which the endpoint recognises a repeated call.",
        ),
    ] = None


def fallback_specs(model: ModelSpec) -> list[ModelSpec]:
    """Return the specs of a model's fallbacks."""
    return [
        ModelSpec(id=name, params=model.params, limits=model.limits) for name in model.fallbacks
    ]


class FileRef(StrictModel):
    """A text file beside the template."""

    file: str


class McpSpec(StrictModel):
    """An MCP server: a program that is started (`command`), or one that is reached (`url`)."""

    command: Annotated[str | None, Field(min_length=1)] = None
    args: list[str] = []
    env: Annotated[
        dict[str, str | SecretRef],
        Field(description="Added to a few harmless variables of this process."),
    ] = {}
    cwd: Annotated[
        str | None, Field(description="A folder; a relative path starts at the template's.")
    ] = None
    url: Annotated[str | None, Field(pattern=r"^https?://")] = None
    transport: Annotated[
        Literal["streamable_http", "sse"] | None,
        Field(description="Transport of a `url`; streamable_http by default."),
    ] = None
    headers: dict[str, str | SecretRef] = {}
    timeout: Annotated[
        Duration, Field(description="Time limit of the server's start, and of one tool call.")
    ] = 60.0

    @model_validator(mode="after")
    def _one_kind(self) -> McpSpec:
        if (self.command is None) == (self.url is None):
            raise ValueError("give exactly one of command and url")
        if self.url is None and (self.headers or self.transport):
            raise ValueError("'headers' and 'transport' go with a url")
        if self.command is None and (self.args or self.env or self.cwd):
            raise ValueError("'args', 'env' and 'cwd' go with a command")
        return self


class ToolSpec(StrictModel):
    """A tool: registered (`use`), a Python object (`ref`), an agent, or an MCP server's."""

    use: str | None = None
    ref: Annotated[str | None, Field(pattern=REF_PATTERN)] = None
    agent: str | None = None
    mcp: McpSpec | None = None
    include: Annotated[
        list[str],
        Field(description="Tools of an MCP server to include: names or globs; all when empty."),
    ] = []
    exclude: Annotated[
        list[str], Field(description="Tools of an MCP server to exclude: names or globs.")
    ] = []
    as_: Annotated[str | None, Field(alias="as", pattern=TOOL_NAME)] = None
    idempotent: Annotated[
        bool, Field(description="Running it twice is harmless, so it runs again after a crash.")
    ] = False
    args: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_kind(self) -> ToolSpec:
        if sum(v is not None for v in (self.use, self.ref, self.agent, self.mcp)) != 1:
            raise ValueError("give exactly one of use, ref, agent and mcp")
        if self.as_ is not None and self.agent is None and self.mcp is None:
            raise ValueError(
                "'as' names an agent tool, or goes before the names of an MCP server's tools"
            )
        if self.mcp is None and (self.include or self.exclude):
            raise ValueError(
                "'include' and 'exclude' choose among the tools of an MCP server: use them with "
                "'mcp'"
            )
        if self.mcp is not None and self.args:
            raise ValueError("an MCP server's tools take no 'args' from a template")
        return self


class InterruptSpec(StrictModel):
    """Configure a tool's approval: the allowed decisions, and the description for the person."""

    allowed_decisions: Annotated[
        list[Literal["approve", "edit", "reject", "respond"]], Field(min_length=1)
    ]
    description: str | None = None


class MiddlewareSpec(BaseModel):
    """A registered LangChain middleware; the other keys are its arguments."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, hide_input_in_errors=True)
    use: str


def expand_tool_shorthand(value: Any) -> Any:
    """Expand the short form of a tool: its registered name."""
    return {"use": value} if isinstance(value, str) else value


def expand_model_shorthand(value: Any) -> Any:
    """Expand the short form of a model: its id."""
    return {"id": value} if isinstance(value, str) else value


AnyTool = Annotated[
    ToolSpec, BeforeValidator(expand_tool_shorthand, json_schema_input_type=str | ToolSpec)
]
AnyModel = Annotated[
    ModelSpec | None,
    BeforeValidator(expand_model_shorthand, json_schema_input_type=str | ModelSpec),
]


class SubagentSpec(StrictModel):
    """Define a sub-agent for the tool `task`, with deepagents' names.

    It starts each task with the task's text only, and answers with its last message. Its model is
    this agent's unless it names one, and so are its tools.
    """

    name: Annotated[str, Field(pattern=TOOL_NAME)]
    description: Annotated[
        str, Field(min_length=1, description="Its purpose, by which the model selects it.")
    ]
    system_prompt: Annotated[str, Field(min_length=1)]
    keywords: Annotated[
        list[str], Field(description="Words that select it when no name is given.")
    ] = []
    tools: list[AnyTool] | None = None
    model: AnyModel = None
    middleware: list[MiddlewareSpec] = []
