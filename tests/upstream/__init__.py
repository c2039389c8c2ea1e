"""LangGraph's own tests, run with the savers and the store of this package.

`make upstream LANGGRAPH_SRC=DIR`.
"""
