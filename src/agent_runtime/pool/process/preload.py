"""Import everything a worker needs once in the fork server, so that workers share its memory.

Nothing imported here may start threads, open sockets or create event loops: children would share
them.
"""

import gc
import importlib

MODULES = (
    "langchain.agents.middleware",
    "agent_runtime.factory",
    # a program's own main module, imported again in a worker, imports it
    "agent_runtime.pool.process.instance_pool",
    "agent_runtime.pool.process.orphan_reaper",
    "agent_runtime.remote.remote_model",
    "agent_runtime.remote.worker_agent",
    "agent_runtime.tools.csv_tools",
    "agent_runtime.tools.document_search",
    "agent_runtime.tools.draft_review",
)

for name in MODULES:
    importlib.import_module(name)


def build_sample_agent() -> None:
    """Build an agent, to run the first-use initialisation of LangChain, LangGraph and pydantic."""
    from langchain.agents import create_agent

    from agent_runtime.models.offline import OfflineChatModel
    from agent_runtime.registry import Registry
    from agent_runtime.run.gated_model import gated
    from agent_runtime.run.gated_tool import gated_tool
    from agent_runtime.tools import register_builtin_tools

    registry = Registry()
    register_builtin_tools(registry)
    tools = [gated_tool(registry.tool("csv_aggregate", {"data": "."}))]
    create_agent(gated(OfflineChatModel()), tools, system_prompt="One.", name="one")


build_sample_agent()
gc.collect()
gc.freeze()  # a collection in a child would write to every page of it
