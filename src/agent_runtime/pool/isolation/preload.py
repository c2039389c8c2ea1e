"""What every worker needs, imported once in the fork server: workers begin with it, and share its memory.

Nothing imported here may start threads, open sockets or make event loops: children would share them.
"""

import gc

import langchain.agents.middleware  # noqa: F401

import agent_runtime.factory
import agent_runtime.pool.isolation.remote_model
import agent_runtime.pool.isolation.worker_agent
import agent_runtime.tools.csv_tools
import agent_runtime.tools.document_search
import agent_runtime.tools.draft_review  # noqa: F401

gc.collect()
gc.freeze()  # a collection in a child would write to every page of it
