"""A check of a draft, by counting: length, long sentences, repeated words, filler."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Annotated, Any

from langchain_core.tools import BaseTool
from pydantic import Field

from agent_runtime.registry import tool_factory
from agent_runtime.run.idempotency import IDEMPOTENT
from agent_runtime.tools.arguments import describe_invalid_arguments
from agent_runtime.tools.function_tool import structured_tool

LONG_SENTENCE_WORDS = 25
FILLERS = frozenset(
    {"very", "really", "just", "quite", "basically", "actually", "simply", "literally"}
)
_COMMON = frozenset(
    "a an and are as at be but by for from has have in is it its of on or our that the their "
    "this to was we will with"
    " you your".split()
)


def review(draft: str, max_words: int) -> dict[str, Any]:
    """Review `draft` by counting: its length, and issues with their remedies."""
    words = re.findall(r"[\w'-]+", draft.lower())
    sentences = [s.strip() for s in re.split(r"(?<=[.!?])\s+", draft) if s.strip()]
    issues: list[str] = []
    if len(words) > max_words:
        issues.append(
            f"{len(words)} words; cut {len(words) - max_words} to stay within {max_words}"
        )
    long_sentences = [
        (len(s.split()), s) for s in sentences if len(s.split()) > LONG_SENTENCE_WORDS
    ]
    issues += [f"a sentence of {length} words: split '{s[:40]}...'" for length, s in long_sentences]
    issues += [f"filler word '{w}': leave it out" for w in sorted(FILLERS & set(words))]
    for word, count in Counter(w for w in words if w not in _COMMON and len(w) > 3).most_common(3):
        if count > 3 and count > len(words) / 12:
            issues.append(f"'{word}' appears {count} times: vary it")
    return {"words": len(words), "sentences": len(sentences), "issues": issues}


@tool_factory(name="review_draft")
def draft_review(max_words: int = 120) -> BaseTool:
    """Create a tool that reviews drafts of up to `max_words` words."""

    def review_draft(
        draft: Annotated[str, Field(description="the whole text of the draft")],
    ) -> str:
        return json.dumps(review(draft, max_words), ensure_ascii=False)

    return structured_tool(
        review_draft,
        metadata={IDEMPOTENT: True},  # it only reads
        name="review_draft",
        description="Review a draft: word count, long sentences, filler and repeated words. "
        "Revise, then answer.",
        handle_validation_error=describe_invalid_arguments,
    )


TOOLS = {"draft_review": draft_review}
