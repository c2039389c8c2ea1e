"""Full-text search over a folder of documents, ranked by BM25, with quotes and file:line."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Annotated, Any

from langchain_core.tools import BaseTool, ToolException
from pydantic import Field

from agent_runtime.bounded_file import read_bounded
from agent_runtime.registry import tool_factory
from agent_runtime.run.idempotency import IDEMPOTENT
from agent_runtime.size_limits import size_limit
from agent_runtime.tools.arguments import describe_invalid_arguments
from agent_runtime.tools.function_tool import structured_tool

SUFFIXES = frozenset({".md", ".txt", ".rst"})
MAX_BYTES = size_limit("document_bytes")
MAX_HITS = 20

# A sentence ends with its mark, a blank line, or the line of a heading or list item.
_SENTENCE = re.compile(r"[^.!?\n]+(?:\n(?!\s*\n|\s*[#*>-])[^.!?\n]+|\.(?=\w)[^.!?\n]+)*[.!?]*")


class DocumentIndex:
    """An index of text files: their sentences in SQLite FTS5 in memory, ranked by BM25."""

    def __init__(self, docs: str) -> None:
        self._root = Path(docs).resolve()
        if not self._root.exists():
            raise ValueError(f"there is no file or folder '{docs}'")
        self._stamp: tuple[Any, ...] = ()
        self._database: sqlite3.Connection | None = None

    def files(self) -> dict[str, Path]:
        """Name to path of each document; links that leave the folder are not followed."""
        if self._root.is_file():
            return {self._root.name: self._root}
        paths = sorted(
            p for p in self._root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()
        )
        return {
            str(p.relative_to(self._root)): p
            for p in paths
            if p.resolve().is_relative_to(self._root)
        }

    def search(self, query: str, k: int) -> list[dict[str, Any]]:
        """Return the best `k` sentences, each with its file and first line."""
        words = re.findall(r"\w+", query.lower())
        if not words:
            raise ToolException("the query has no words")
        match = " OR ".join(f'"{w}"' for w in dict.fromkeys(words))
        rows = self._connection().execute(
            "SELECT file, line, text, bm25(sentences) FROM sentences WHERE sentences MATCH ? "
            "ORDER BY 4 LIMIT ?",
            (match, max(1, min(k, MAX_HITS))),
        )
        return [
            {"file": f, "line": line, "quote": text, "score": round(-rank, 3)}
            for f, line, text, rank in rows
        ]

    def _connection(self) -> sqlite3.Connection:
        files = self.files()
        stamp = tuple((name, path.stat().st_mtime_ns) for name, path in files.items())
        if self._database is None or stamp != self._stamp:
            database = sqlite3.connect(":memory:", check_same_thread=False)
            database.execute(
                "CREATE VIRTUAL TABLE sentences"
                " USING fts5(text, file UNINDEXED, line UNINDEXED, tokenize='porter unicode61')"
            )
            for name, path in files.items():
                database.executemany(
                    "INSERT INTO sentences (text, file, line) VALUES (?, ?, ?)",
                    _sentences(name, path),
                )
            self._database = database
            self._stamp = stamp
        return self._database


def _sentences(name: str, path: Path) -> list[tuple[str, str, int]]:
    """Return each sentence or heading with its file and first line."""
    try:
        text = read_bounded(path, MAX_BYTES).decode("utf-8", "replace")
    except OSError:  # too large, or gone since the folder was listed
        return []
    sentences: list[tuple[str, str, int]] = []
    for match in _SENTENCE.finditer(text):
        quote = " ".join(match[0].split()).lstrip("#-*> ")
        leading_length = len(match[0]) - len(match[0].lstrip())
        if quote:
            sentences.append((quote, name, 1 + text.count("\n", 0, match.start() + leading_length)))
    return sentences


@tool_factory(name="search_documents")
def document_search(docs: str) -> BaseTool:
    """Create a tool that searches the documents of one folder."""
    index = DocumentIndex(docs)

    def search_documents(
        query: Annotated[str, Field(description="words to search for")],
        k: Annotated[int, Field(description="number of hits to return")] = 3,
    ) -> str:
        return json.dumps({"query": query, "hits": index.search(query, k)}, ensure_ascii=False)

    return structured_tool(
        search_documents,
        metadata={IDEMPOTENT: True},  # it only reads
        name="search_documents",
        description="Search the documents; returns quotes with file and line, best first.",
        handle_tool_error=True,
        handle_validation_error=describe_invalid_arguments,
    )


TOOLS = {"document_search": document_search}
