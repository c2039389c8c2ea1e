"""The conditions in a question: values, comparisons and periods of a table's columns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Protocol

from agent_runtime.models.question_words import COMPARISONS, MONTHS, RELATED_WORDS
from agent_runtime.models.result_fields import ResultField, words_of


class QuestionText(Protocol):
    """A question: its text, its words, and the columns that it may be about."""

    text: str
    lowered_text: str
    words: list[str]
    fields: list[ResultField]


def mentions_value(question: QuestionText, value: str, f: ResultField) -> bool:
    """Tell whether a question names a value of a column, as a word and not as a number."""
    prefix_pattern = (
        rf"\b{re.escape(f.name)}\W+(?:is\W+)?" if len(value) < 2 or value.isdigit() else r"\b"
    )
    match = re.search(rf"{prefix_pattern}{re.escape(value)}s?\b", question.text, re.IGNORECASE)
    return bool(match) and set(words_of(value)) != set(words_of(f.name))


def value_conditions(question: QuestionText) -> Iterator[dict[str, Any]]:
    """Yield the conditions for values of columns that a question names."""
    used_values: list[str] = []
    for f in sorted(question.fields, key=lambda f: -f.mention_score):
        unused_values = [
            v
            for v in f.values
            if mentions_value(question, v, f) and not any(v.lower() in t for t in used_values)
        ]
        value = max(
            unused_values,
            key=lambda v: (-question.lowered_text.find(v.lower()), len(v)),
            default="",
        )
        is_boolean = f.mention_score >= 5 and {v.lower() for v in f.values} <= {
            "yes",
            "no",
            "true",
            "false",
            "y",
            "n",
        }
        if value:
            used_values.append(value.lower())
            negation_pattern = (
                r"\b(?:not|except|excluding|outside|without)\s+(?:\w+\s+)?"
                + re.escape(value.lower())
            )
            yield {
                "column": f.name,
                "op": "!=" if re.search(negation_pattern, question.lowered_text) else "=",
                "value": value,
            }
        elif f.values and is_boolean:
            matching_initials = (
                "nf"
                if {"not", "without", "non", f"un{words_of(f.name)[-1]}"} & set(question.words)
                else "yt"
            )
            yield from (
                {"column": f.name, "op": "=", "value": v}
                for v in f.values
                if v[0].lower() in matching_initials
            )


def comparison_conditions(question: QuestionText) -> Iterator[dict[str, Any]]:
    """Yield the conditions for comparisons with numbers."""
    for m in re.finditer(
        r"between \$?(\d[\d.-]*) and \$?(\d[\d-]*(?:\.\d+)?)", question.lowered_text
    ):
        column = column_near(question, m[1], m.start(), m.end())
        yield from (
            {"column": column, "op": op, "value": v}
            for op, v in ((">=", m[1]), ("<=", m[2]))
            if column
        )
    for words, op in COMPARISONS:
        for m in re.finditer(
            rf"(?<![\w<>])(?:{words})\s*\$?(\d{{4}}-\d\d(?:-\d\d)?|\d+(?:\.\d+)?)",
            question.lowered_text,
        ):
            if column := column_near(question, m[1], m.start(), m.end()):
                yield {"column": column, "op": op, "value": m[1]}


def column_near(question: QuestionText, value: str, start: int, end: int) -> str:
    """Return the column that a number or date is compared with, named after it, else before it."""
    before = words_of(question.lowered_text[:start])
    after = set(words_of(question.lowered_text[end:])[:3])
    is_date = "-" in value or bool(re.fullmatch(r"(?:19|20)\d\d", value))
    candidate_fields = [f for f in question.fields if f.type == "number" and "-" not in value]
    candidate_fields += [
        f for f in question.fields if is_date and (f.type == "date" or words_of(f.name) == ["year"])
    ]
    fields_after = [
        f
        for f in sorted(candidate_fields, key=lambda f: -len(after & {*words_of(f.name)}))
        if after & {*words_of(f.name)}
    ]
    words_before = [*before, *words_of(question.lowered_text[start:end])]
    word_positions = {
        f.name: max(
            (
                index
                for index, word in enumerate(words_before)
                if {word, *RELATED_WORDS.get(word, "").split()} & set(words_of(f.name))
            ),
            default=-1,
        )
        for f in candidate_fields
    }
    fields_before = sorted(
        (f for f in candidate_fields if word_positions[f.name] >= 0),
        key=lambda f: -word_positions[f.name],
    )
    return next(
        (
            f.name
            for f in [
                *fields_after,
                *fields_before,
                *(candidate_fields[-1:] if is_date or len(candidate_fields) == 1 else []),
            ]
        ),
        "",
    )


def period_conditions(question: QuestionText) -> Iterator[dict[str, Any]]:
    """Yield the conditions for months and years."""
    matches = re.finditer(
        rf"\b(?:in|of|during|from|for)\s+({'|'.join(MONTHS)}|)\b\s*((?:19|20)\d\d\b|)",
        question.lowered_text,
    )
    m = next((m for m in matches if m[1] or m[2]), None)
    date = next((f for f in question.fields if f.type == "date"), None)
    year = next((f for f in question.fields if words_of(f.name) == ["year"]), None)
    if m is not None and date is not None:
        month = f"-{MONTHS.index(m[1]) + 1:02}" if m[1] else ""
        yield {
            "column": date.name,
            "op": "starts_with" if m[2] else "contains",
            "value": f"{m[2]}{month}",
        }
    elif m is not None and year is not None and m[2]:
        yield {"column": year.name, "op": "=", "value": m[2]}
