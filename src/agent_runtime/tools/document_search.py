"""Full-text search over a folder of documents, ranked by BM25, with quotes and file:line."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Annotated, Any

from langchain_core.tools import BaseTool, StructuredTool, ToolException
from pydantic import Field

from agent_runtime.registry import tool_factory
from agent_runtime.tools.arguments import wrong_arguments

SUFFIXES = frozenset({".md", ".txt", ".rst"})
MAX_BYTES = 4 * 1024 * 1024
MAX_HITS = 20


class DocumentIndex:
    """The paragraphs of the text files under one folder, in an in-memory SQLite FTS5 table (which ranks by BM25)."""

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
        found = sorted(p for p in self._root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        return {str(p.relative_to(self._root)): p for p in found if p.resolve().is_relative_to(self._root)}

    def search(self, query: str, k: int) -> list[dict[str, Any]]:
        """The best `k` paragraphs with their file, the line they start on, and the sentence that fits best."""
        words = re.findall(r"\w+", query.lower())
        if not words:
            raise ToolException("the query has no words")
        match = " OR ".join(f'"{w}"' for w in dict.fromkeys(words))
        rows = self._connection().execute(
            "SELECT file, line, text, bm25(paragraphs) FROM paragraphs WHERE paragraphs MATCH ? ORDER BY 4 LIMIT ?",
            (match, max(1, min(k, MAX_HITS))),
        )
        return [
            {"file": file, **_quote(text, line, words), "score": round(-rank, 3)} for file, line, text, rank in rows
        ]

    def _connection(self) -> sqlite3.Connection:
        files = self.files()
        stamp = tuple((name, path.stat().st_mtime_ns) for name, path in files.items())
        if self._database is None or stamp != self._stamp:
            database = sqlite3.connect(":memory:", check_same_thread=False)
            database.execute(
                "CREATE VIRTUAL TABLE paragraphs"
                " USING fts5(text, file UNINDEXED, line UNINDEXED, tokenize='porter unicode61')"
            )
            for name, path in files.items():
                database.executemany(
                    "INSERT INTO paragraphs (text, file, line) VALUES (?, ?, ?)", _paragraphs(name, path)
                )
            self._database, self._stamp = database, stamp
        return self._database


def _paragraphs(name: str, path: Path) -> list[tuple[str, str, int]]:
    if path.stat().st_size > MAX_BYTES:
        return []
    found: list[tuple[str, str, int]] = []
    lines: list[str] = []
    start = 1
    for number, line in enumerate([*path.read_text("utf-8", "replace").splitlines(), ""], 1):
        if line.strip():
            start = start if lines else number
            lines.append(line)
        elif lines:
            found.append(("\n".join(lines), name, start))
            lines = []
    return found


def _quote(text: str, line: int, words: list[str]) -> dict[str, Any]:
    """The sentence with the most of the words, and the line on which it starts."""
    stems = {w[:5] for w in words if len(w) > 2}
    sentences = list(re.finditer(r"[^.!?]+[.!?]*", text)) or list(re.finditer(r".+", text, re.DOTALL))
    best = max(sentences, key=lambda m: len(stems & {w[:5] for w in re.findall(r"\w+", m[0].lower())}))
    lead = len(best[0]) - len(best[0].lstrip())
    quote = " ".join(best[0].split()).lstrip("#-* ")
    return {"line": line + text.count("\n", 0, best.start() + lead), "quote": quote}


@tool_factory
def document_search(docs: str) -> BaseTool:
    """Searches the documents of one folder."""
    index = DocumentIndex(docs)

    def search_documents(
        query: Annotated[str, Field(description="words to search for")],
        k: Annotated[int, Field(description="number of hits to return")] = 3,
    ) -> str:
        return json.dumps({"query": query, "hits": index.search(query, k)}, ensure_ascii=False)

    return StructuredTool.from_function(
        search_documents,
        name="search_documents",
        description="Search the documents; returns quotes with file and line, best first.",
        handle_tool_error=True,
        handle_validation_error=wrong_arguments,
    )


TOOLS = {"document_search": document_search}
