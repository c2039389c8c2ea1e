"""What every worker needs, imported once in the fork server: workers begin with it, and share its memory.

Nothing imported here may start threads, open sockets or make event loops: children would share them.
"""

import gc
import importlib

MODULES = (
    "langchain.agents.middleware",
    "agent_runtime.factory",
    "agent_runtime.pool.instance_pool",  # a program's own main module, imported again in a worker, asks for it
    "agent_runtime.pool.isolation.guard",
    "agent_runtime.pool.isolation.remote_model",
    "agent_runtime.pool.isolation.worker_agent",
    "agent_runtime.tools.csv_tools",
    "agent_runtime.tools.document_search",
    "agent_runtime.tools.draft_review",
)

for name in MODULES:
    importlib.import_module(name)
gc.collect()
gc.freeze()  # a collection in a child would write to every page of it
