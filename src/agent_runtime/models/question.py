"""A question about a table, read by its words, for the offline model."""

from __future__ import annotations

import re
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage

from agent_runtime.models.question_conditions import (
    comparison_conditions,
    mentions_value,
    period_conditions,
    value_conditions,
)
from agent_runtime.models.question_words import (
    ADDITIVE_WORDS,
    FUNCTION_WORDS,
    HIGHEST_WORDS,
    LOWEST_WORDS,
    NUMBER_WORDS,
    RELATED_WORDS,
    STAND_IN,
    STOP_WORDS,
)
from agent_runtime.models.result_fields import ResultField, fields_of, parse_result, words_of


class Question:
    """Parse a question into the terms of tools' arguments, with the calls made for it so far."""

    def __init__(self, messages: list[BaseMessage]) -> None:
        start = max((i for i, m in enumerate(messages) if isinstance(m, HumanMessage)), default=0)
        answers = [m for m in messages[start + 1 :] if isinstance(m, ToolMessage)]
        self.text = str(messages[start].text) if messages else ""
        self.topic = re.split(r"(?i)\b(?:about|announc\w+)\s+", self.text)[-1].strip().rstrip(".!?")
        self.called_tools = [m.name for m in answers]
        self.results = [parse_result(str(m.text)) for m in answers]
        self.lowered_text = re.sub(r"(?<=\d),(?=\d{3})", "", self.text.lower())
        self.words = words_of(self.text)
        self.fields = self._fields_of_best_file([f for r in self.results for f in fields_of(r)])
        self.file = self.fields[0].file if self.fields else ""
        self.measure = self.group = self.rank_column = ""
        self.conditions = [
            *value_conditions(self),
            *comparison_conditions(self),
            *period_conditions(self),
        ]
        self.function = next(
            (function for function, words in FUNCTION_WORDS.items() if words & set(self.words)), ""
        )
        rank_words = set(
            words_of(re.sub(r"\bat (?:least|most)\b", "", self.lowered_text))
        )  # "at least 3" is a bound, no ranking
        highest_words = HIGHEST_WORDS & rank_words
        lowest_words = LOWEST_WORDS & rank_words
        self.order = (
            "asc"
            if lowest_words and not highest_words
            else "desc"
            if highest_words or lowest_words
            else ""
        )
        ranks = "|".join(HIGHEST_WORDS | LOWEST_WORDS | {"first"})
        numbers = "|".join([r"\d{1,9}", *NUMBER_WORDS])
        count_match = re.search(
            rf"\b(?<!\bat )(?:{ranks})\s+({numbers})\b|\b({numbers})\s+(?:{ranks})\b",
            self.lowered_text,
        )
        self.n: int | None = next(
            (
                NUMBER_WORDS.get(c) or int(c)
                for c in (count_match.groups() if count_match else ())
                if c
            ),
            None,
        )
        self._choose_calculation()

    def _fields_of_best_file(self, fields: list[ResultField]) -> list[ResultField]:
        scores: dict[str, float] = {}
        for f in fields:
            self._score_mention(f)
            scores.setdefault(f.file, 15.0 * bool(set(words_of(f.file)) & set(self.words)))
            scores[f.file] += f.mention_score + 8 * min(
                2, sum(mentions_value(self, v, f) for v in f.values)
            )
        return [f for f in fields if f.file == max(scores, key=lambda s: scores[s])]

    def _score_mention(self, f: ResultField) -> None:
        name = words_of(f.name) or [f.name]
        significant_words = (
            {*name} & {"date", "day", "time"}
            if f.type == "date"
            else {*name} - STOP_WORDS - {"id", "name"}
        )
        for i, word in enumerate(self.words):
            score = 10.0 / len(name) * bool({word, word.removeprefix("un")} & significant_words)
            score = max(score, 4.0 * bool(set(RELATED_WORDS.get(word, "").split()) & set(name)))
            if self.words[i : i + len(name)] == name:
                score = 10.0 * len(name) + 5
            if score > f.mention_score:
                f.position = i
                f.mention_score = score

    @staticmethod
    def _best_field(fields: list[ResultField]) -> ResultField | None:
        return max(
            (f for f in fields if f.mention_score > 0),
            key=lambda f: (f.mention_score, -f.position),
            default=None,
        )

    def _choose_calculation(self) -> None:
        """Choose a calculation on a column, by a group, or rows in an order."""
        unused_fields = [
            f for f in self.fields if f.name not in {c["column"] for c in self.conditions}
        ]
        numbers = [f for f in unused_fields if f.type == "number" and "id" not in words_of(f.name)]
        texts = [f for f in unused_fields if f.type != "number"]
        measure = self._best_field(numbers)
        group = self._group_field(texts)
        count_phrase = re.search(
            r"\b(?:how many|number of)\s+(?:different |distinct |unique )?", self.lowered_text
        )
        if count_phrase and self.function in ("", "sum", "count"):
            measure = self._counted_field(count_phrase.end(), unused_fields, numbers, texts, group)
        if self.function == "count_distinct":
            measure = measure if measure in texts else self._best_field(texts)
            group = None
        wants_number = self.function in ("sum", "mean", "median") or "much" in self.words
        if measure is None and (wants_number or (self.order and not group)):
            measure = next(
                (f for f in numbers if set(words_of(f.name)) & ADDITIVE_WORDS),
                next(iter(numbers), None),
            )
        additive = measure is not None and bool(set(words_of(measure.name)) & ADDITIVE_WORDS)
        entity = re.search(r"\b(?:which|who|what)\b(?! (?:is|was|are) the\b)", self.lowered_text)
        if self.order and not self.function:
            if (
                measure is not None
                and (self.n or entity or group)
                and (group is None or group.distinct >= group.rows)
            ):
                self.rank_column = measure.name
                self.n = self.n or 1
                group = None
                return
            is_summed = bool(group and (additive or {"most", "least", "fewest"} & set(self.words)))
            self.function = (
                "count"
                if measure is None
                else "sum"
                if is_summed
                else "min"
                if self.order == "asc"
                else "max"
            )
        if group is not None:
            self.function = self.function or ("sum" if additive else "mean" if measure else "count")
            self.n = self.n or (1 if self.order and entity else None)
            self.group = group.name
            self.order = self.order or "desc"
        self.function = self.function or ("sum" if additive else "")
        self.measure = measure.name if measure is not None and self.function != "count" else ""

    def _counted_field(
        self,
        phrase_end: int,
        unused_fields: list[ResultField],
        numbers: list[ResultField],
        texts: list[ResultField],
        group: ResultField | None,
    ) -> ResultField | None:
        """Choose the function for a question of how many, and return the column that it counts."""
        word_position = len(words_of(self.lowered_text[:phrase_end]))
        counted_field = next(
            (
                f
                for f in unused_fields
                if word_position <= f.position <= word_position + 1 and f.mention_score >= 5
            ),
            None,
        )
        counts_distinct = (
            counted_field in texts
            and counted_field.distinct < counted_field.rows
            and not self.conditions
            and counted_field is not group
        )
        measure = counted_field if counted_field in numbers or counts_distinct else None
        is_summed = counted_field in numbers and not (self.order and group is None)
        self.function = (
            "sum"
            if is_summed
            else "count_distinct"
            if counts_distinct
            else ""
            if measure
            else "count"
        )
        return measure

    def _group_field(self, texts: list[ResultField]) -> ResultField | None:
        lead_words = {"per", "by", "each", "every", "which", "what", "top", "who"}
        lead_fields = [
            f
            for f in texts
            if f.position >= 0
            and lead_words
            & set(self.words[max(0, f.position - 2) : f.position + (f.mention_score == 4)])
        ]
        lead_fields = [
            f
            for f in lead_fields
            if self.order or not self.function or f.mention_score >= 10 or f.distinct < f.rows
        ]
        return self._best_field(
            lead_fields + [f for f in texts if self.order and f.mention_score >= 5]
        )

    def next_call(self, tools: list[dict[str, Any]]) -> tuple[str, dict[str, Any]] | None:
        """Return the call that covers most of the question, first one that describes the data."""
        if not self.called_tools:
            for t in tools:
                if not t["parameters"].get("required") and {"describe", "first"} & set(
                    words_of(t["description"])
                ):
                    return t["name"], {}
        elif not self.fields or len(self.called_tools) > 1:
            return None
        best: tuple[float, str, dict[str, Any]] = (0.0, "", {})
        for t in tools:
            arguments = {
                n: self._argument_for(n, p)
                for n, p in t["parameters"].get("properties", {}).items()
            }
            args = {n: v for n, v in arguments.items() if v is not None}
            if t["name"] not in self.called_tools and not set(
                t["parameters"].get("required", ())
            ) - set(args):
                overlap = len(set(words_of(f"{t['name']} {t['description']}")) & set(self.words))
                best = max(
                    best,
                    (3.0 * len(set(args) - {"file"}) + 0.5 * overlap, t["name"], args),
                    key=lambda b: b[0],
                )
        return (best[1], best[2]) if best[0] else None

    def _argument_for(self, name: str, schema: dict[str, Any]) -> Any:
        options = [schema, *schema.get("anyOf", [])]
        schema_text = " ".join([name, *(o.get("description", "") for o in options)]).lower()
        choices = [c for o in options for c in o.get("enum", [])]
        kind = next((o["type"] for o in options if o.get("type") not in (None, "null")), "")
        if choices:
            return next((s for s in (self.function, self.order) if s in choices), None)
        if kind != "string":
            return (
                self.n
                if kind == "integer"
                else self.conditions or None
                if "condition" in schema_text
                else None
            )
        query = " ".join(w for w in self.words if w not in STOP_WORDS)
        parts = {
            "file": self.file,
            "group": self.group,
            "order": self.rank_column,
            "column": self.measure,
            "search": query,
        }
        return next(
            (
                v or None
                for word, v in {**parts, "draft": self._draft()}.items()
                if word in schema_text
            ),
            self.text,
        )

    def form_value(self, name: str, schema: dict[str, Any]) -> Any:
        """Return a value for a field of a structured answer.

        From a result, or a default of its type.
        """
        result_values = {k: v for r in self.results if isinstance(r, dict) for k, v in r.items()}
        items = next((v for v in result_values.values() if isinstance(v, list)), [])
        text = (
            self.topic[:80].capitalize()
            if {"title", "subject"} & set(words_of(name))
            else self._draft()
        )
        number_match = re.search(r"\d+", self.lowered_text)
        number = int(number_match[0]) if number_match else 0
        by_type = {
            "integer": number,
            "number": number,
            "boolean": True,
            "array": [str(i) for i in items],
            "object": {},
        }
        return (
            schema["enum"][0]
            if "enum" in schema
            else result_values.get(name, by_type.get(schema.get("type", ""), text))
        )

    def _draft(self) -> str:
        return (
            f"This is about {self.topic}. Reply with the missing part, and this text will be "
            f"revised. {STAND_IN}"
        )

    def render_answer(self) -> str:
        """Return the answer to the question, from the results so far."""
        result = (
            self.results[-1]
            if self.results
            else f"No tool fits what you asked, and I cannot think: {self.text}"
        )
        if not isinstance(result, dict):
            return f"{result} {STAND_IN}"
        header = ", ".join(
            f"{k}: {v}" for k, v in result.items() if v and not isinstance(v, list | dict)
        )
        limits = f" where {' and '.join(result['where'])}" if result.get("where") else ""
        if "value" in result:
            column_text = f" of {result['column']}" if result.get("column") else ""
            return (
                f"The {result.get('function', 'value')}{column_text}{limits} is {result['value']}. "
                f"{STAND_IN}"
            )
        lines = [
            _item_line(i)
            for k, v in result.items()
            if isinstance(v, list) and k != "where"
            for i in v
        ]
        return "\n".join(
            [f"{header}{limits}{':' if lines else ': nothing was found.'}", *lines, STAND_IN]
        )


def _item_line(item: Any) -> str:
    if not isinstance(item, dict):
        return f"- {item}"
    if {"file", "line", "quote"} <= set(item):
        return f'- "{item["quote"]}" ({item["file"]}:{item["line"]})'
    nested = (i for v in item.values() if isinstance(v, list) for i in v)
    names = [str(i["name"]) for i in nested if isinstance(i, dict) and "name" in i]
    return "- " + ", ".join(
        [f"{k}: {v}" for k, v in item.items() if not isinstance(v, list)] + names
    )
