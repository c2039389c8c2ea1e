"""A chat model that needs no network.

A rule-based stand-in, deterministic, for trying templates and for tests.

It understands nothing. It matches the words of a question with the tools' names, descriptions and
argument schemas and with the column names and values in earlier results, then reads the result out.
It is no language model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from agent_runtime.models.local_model import LocalChatModel, usage_by_length
from agent_runtime.models.question_words import (
    ADDITIVE,
    COMPARISONS,
    FUNCTIONS,
    LEAST,
    MONTHS,
    MOST,
    NUMBERS,
    RELATED,
    STOP,
)
from agent_runtime.models.result_fields import ResultField, fields_of, parse_result, words_of

STAND_IN = "(offline stand-in, not a language model)"


class OfflineChatModel(LocalChatModel):
    """The `offline:` model: same question, tools and history, same answer.

    It bills nothing and says what it is.
    """

    provider: str = "offline"

    def answer(
        self, messages: list[BaseMessage], tools: list[dict[str, Any]], tool_choice: Any
    ) -> AIMessage:
        """Answer with a tool call while one fits.

        Then, if the answer has a form (`tool_choice`), that; else text.
        """
        asked = _Asked(messages)
        offered = [t["function"] for t in tools]
        form = offered.pop() if offered and tool_choice in ("any", "required") else None
        if (named := next((t for t in offered if t["name"] == tool_choice), None)) is not None:
            form = named
            offered = []
        call = asked.next_call(offered)
        if call is None and form is not None:
            call = (
                form["name"],
                {n: asked.form_value(n, p) for n, p in form["parameters"]["properties"].items()},
            )
        text = "" if call else asked.read_out()
        calls: list[Any] = (
            [{"id": f"call_{len(messages)}", "name": call[0], "args": call[1]}] if call else []
        )
        usage = usage_by_length(messages, text + json.dumps(calls))
        return AIMessage(text, tool_calls=calls, usage_metadata=usage)


class _Asked:
    """What the question asks, in the terms that tools' arguments use.

    What has been called for it so far.
    """

    def __init__(self, messages: list[BaseMessage]) -> None:
        start = max((i for i, m in enumerate(messages) if isinstance(m, HumanMessage)), default=0)
        answers = [m for m in messages[start + 1 :] if isinstance(m, ToolMessage)]
        self.text = str(messages[start].text) if messages else ""
        self.topic = re.split(r"(?i)\b(?:about|announc\w+)\s+", self.text)[-1].strip().rstrip(".!?")
        self.called = [m.name for m in answers]
        self.results = [parse_result(str(m.text)) for m in answers]
        self.low = re.sub(r"(?<=\d),(?=\d{3})", "", self.text.lower())
        self.words = words_of(self.text)
        self.fields = self._of_best_file([f for r in self.results for f in fields_of(r)])
        self.file = self.fields[0].file if self.fields else ""
        self.measure = self.group = self.ranked = ""
        self.where = [*self._named_values(), *self._comparisons(), *self._periods()]
        self.function = next((n for n, says in FUNCTIONS.items() if says & set(self.words)), "")
        plain = set(
            words_of(re.sub(r"\bat (?:least|most)\b", "", self.low))
        )  # "at least 3" is a bound, no ranking
        most = MOST & plain
        least = LEAST & plain
        self.order = "asc" if least and not most else "desc" if most or least else ""
        ranks = "|".join(MOST | LEAST | {"first"})
        numbers = "|".join([r"\d{1,9}", *NUMBERS])
        n = re.search(
            rf"\b(?<!\bat )(?:{ranks})\s+({numbers})\b|\b({numbers})\s+(?:{ranks})\b", self.low
        )
        self.n: int | None = next(
            (NUMBERS.get(c) or int(c) for c in (n.groups() if n else ()) if c), None
        )
        self._calculation()

    def _of_best_file(self, fields: list[ResultField]) -> list[ResultField]:
        scores: dict[str, float] = {}
        for f in fields:
            self._mention(f)
            scores.setdefault(f.file, 15.0 * bool(set(words_of(f.file)) & set(self.words)))
            scores[f.file] += f.strength + 8 * min(2, sum(self._says(v, f) for v in f.values))
        return [f for f in fields if f.file == max(scores, key=lambda s: scores[s])]

    def _mention(self, f: ResultField) -> None:
        name = words_of(f.name) or [f.name]
        telling = (
            {*name} & {"date", "day", "time"}
            if f.type == "date"
            else {*name} - STOP - {"id", "name"}
        )
        for i, word in enumerate(self.words):
            strength = 10.0 / len(name) * bool({word, word.removeprefix("un")} & telling)
            strength = max(strength, 4.0 * bool(set(RELATED.get(word, "").split()) & set(name)))
            if self.words[i : i + len(name)] == name:
                strength = 10.0 * len(name) + 5
            if strength > f.strength:
                f.at = i
                f.strength = strength

    @staticmethod
    def _best(fields: list[ResultField]) -> ResultField | None:
        return max(
            (f for f in fields if f.strength > 0), key=lambda f: (f.strength, -f.at), default=None
        )

    def _calculation(self) -> None:
        """Which calculation on which column, by which group, or which rows in which order."""
        free = [f for f in self.fields if f.name not in {c["column"] for c in self.where}]
        numbers = [f for f in free if f.type == "number" and "id" not in words_of(f.name)]
        texts = [f for f in free if f.type != "number"]
        measure = self._best(numbers)
        group = self._grouping(texts)
        many = re.search(r"\b(?:how many|number of)\s+(?:different |distinct |unique )?", self.low)
        if many and self.function in ("", "sum", "count"):
            at = len(words_of(self.low[: many.end()]))
            counted = next((f for f in free if at <= f.at <= at + 1 and f.strength >= 5), None)
            kinds = (
                counted in texts
                and counted.distinct < counted.rows
                and not self.where
                and counted is not group
            )
            measure = counted if counted in numbers or kinds else None
            summed = counted in numbers and not (self.order and group is None)
            self.function = (
                "sum" if summed else "count_distinct" if kinds else "" if measure else "count"
            )
        if self.function == "count_distinct":
            measure = measure if measure in texts else self._best(texts)
            group = None
        wants_number = self.function in ("sum", "mean", "median") or "much" in self.words
        if measure is None and (wants_number or (self.order and not group)):
            measure = next(
                (f for f in numbers if set(words_of(f.name)) & ADDITIVE), next(iter(numbers), None)
            )
        additive = measure is not None and bool(set(words_of(measure.name)) & ADDITIVE)
        entity = re.search(r"\b(?:which|who|what)\b(?! (?:is|was|are) the\b)", self.low)
        if self.order and not self.function:
            if (
                measure is not None
                and (self.n or entity or group)
                and (group is None or group.distinct >= group.rows)
            ):
                self.ranked = measure.name
                self.n = self.n or 1
                group = None
                return
            summed = bool(group and (additive or {"most", "least", "fewest"} & set(self.words)))
            self.function = (
                "count"
                if measure is None
                else "sum"
                if summed
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

    def _grouping(self, texts: list[ResultField]) -> ResultField | None:
        leads = {"per", "by", "each", "every", "which", "what", "top", "who"}
        led = [
            f
            for f in texts
            if f.at >= 0 and leads & set(self.words[max(0, f.at - 2) : f.at + (f.strength == 4)])
        ]
        led = [
            f
            for f in led
            if self.order or not self.function or f.strength >= 10 or f.distinct < f.rows
        ]
        return self._best(led + [f for f in texts if self.order and f.strength >= 5])

    def _says(self, value: str, f: ResultField) -> bool:
        lead = (
            rf"\b{re.escape(f.name)}\W+(?:is\W+)?" if len(value) < 2 or value.isdigit() else r"\b"
        )
        said = re.search(rf"{lead}{re.escape(value)}s?\b", self.text, re.IGNORECASE)
        return bool(said) and set(words_of(value)) != set(words_of(f.name))

    def _named_values(self) -> Iterator[dict[str, Any]]:
        taken: list[str] = []
        for f in sorted(self.fields, key=lambda f: -f.strength):
            free = [
                v for v in f.values if self._says(v, f) and not any(v.lower() in t for t in taken)
            ]
            value = max(free, key=lambda v: (-self.low.find(v.lower()), len(v)), default="")
            yes_no = f.strength >= 5 and {v.lower() for v in f.values} <= {
                "yes",
                "no",
                "true",
                "false",
                "y",
                "n",
            }
            if value:
                taken.append(value.lower())
                no = r"\b(?:not|except|excluding|outside|without)\s+(?:\w+\s+)?" + re.escape(
                    value.lower()
                )
                yield {
                    "column": f.name,
                    "op": "!=" if re.search(no, self.low) else "=",
                    "value": value,
                }
            elif f.values and yes_no:
                wanted = (
                    "nf"
                    if {"not", "without", "non", f"un{words_of(f.name)[-1]}"} & set(self.words)
                    else "yt"
                )
                yield from (
                    {"column": f.name, "op": "=", "value": v}
                    for v in f.values
                    if v[0].lower() in wanted
                )

    def _comparisons(self) -> Iterator[dict[str, Any]]:
        for m in re.finditer(r"between \$?(\d[\d.-]*) and \$?(\d[\d-]*(?:\.\d+)?)", self.low):
            column = self._column_near(m[1], m.start(), m.end())
            yield from (
                {"column": column, "op": op, "value": v}
                for op, v in ((">=", m[1]), ("<=", m[2]))
                if column
            )
        for words, op in COMPARISONS:
            for m in re.finditer(
                rf"(?<![\w<>])(?:{words})\s*\$?(\d{{4}}-\d\d(?:-\d\d)?|\d+(?:\.\d+)?)", self.low
            ):
                if column := self._column_near(m[1], m.start(), m.end()):
                    yield {"column": column, "op": op, "value": m[1]}

    def _column_near(self, value: str, start: int, end: int) -> str:
        """The column that a number or date is compared with.

        Named after it ("300 pages"), else before it.
        """
        before = words_of(self.low[:start])
        after = set(words_of(self.low[end:])[:3])
        is_date = "-" in value or bool(re.fullmatch(r"(?:19|20)\d\d", value))
        near = [f for f in self.fields if f.type == "number" and "-" not in value]
        near += [
            f for f in self.fields if is_date and (f.type == "date" or words_of(f.name) == ["year"])
        ]
        after_it = [
            f
            for f in sorted(near, key=lambda f: -len(after & {*words_of(f.name)}))
            if after & {*words_of(f.name)}
        ]
        asked_words = [*before, *words_of(self.low[start:end])]
        word_at = {
            f.name: max(
                (
                    index
                    for index, word in enumerate(asked_words)
                    if {word, *RELATED.get(word, "").split()} & set(words_of(f.name))
                ),
                default=-1,
            )
            for f in near
        }
        named = sorted((f for f in near if word_at[f.name] >= 0), key=lambda f: -word_at[f.name])
        return next(
            (
                f.name
                for f in [*after_it, *named, *(near[-1:] if is_date or len(near) == 1 else [])]
            ),
            "",
        )

    def _periods(self) -> Iterator[dict[str, Any]]:
        said = re.finditer(
            rf"\b(?:in|of|during|from|for)\s+({'|'.join(MONTHS)}|)\b\s*((?:19|20)\d\d\b|)",
            self.low,
        )
        m = next((m for m in said if m[1] or m[2]), None)
        date = next((f for f in self.fields if f.type == "date"), None)
        year = next((f for f in self.fields if words_of(f.name) == ["year"]), None)
        if m is not None and date is not None:
            month = f"-{MONTHS.index(m[1]) + 1:02}" if m[1] else ""
            yield {
                "column": date.name,
                "op": "starts_with" if m[2] else "contains",
                "value": f"{m[2]}{month}",
            }
        elif m is not None and year is not None and m[2]:
            yield {"column": year.name, "op": "=", "value": m[2]}

    def next_call(self, tools: list[dict[str, Any]]) -> tuple[str, dict[str, Any]] | None:
        """The tool that takes most of what is asked.

        First of all one that shows what there is to ask about.
        """
        if not self.called:
            for t in tools:
                if not t["parameters"].get("required") and {"describe", "first"} & set(
                    words_of(t["description"])
                ):
                    return t["name"], {}
        elif not self.fields or len(self.called) > 1:
            return None
        best: tuple[float, str, dict[str, Any]] = (0.0, "", {})
        for t in tools:
            filled = {n: self._arg(n, p) for n, p in t["parameters"].get("properties", {}).items()}
            args = {n: v for n, v in filled.items() if v is not None}
            if t["name"] not in self.called and not set(t["parameters"].get("required", ())) - set(
                args
            ):
                overlap = len(set(words_of(f"{t['name']} {t['description']}")) & set(self.words))
                best = max(
                    best,
                    (3.0 * len(set(args) - {"file"}) + 0.5 * overlap, t["name"], args),
                    key=lambda b: b[0],
                )
        return (best[1], best[2]) if best[0] else None

    def _arg(self, name: str, schema: dict[str, Any]) -> Any:
        options = [schema, *schema.get("anyOf", [])]
        says = " ".join([name, *(o.get("description", "") for o in options)]).lower()
        choices = [c for o in options for c in o.get("enum", [])]
        kind = next((o["type"] for o in options if o.get("type") not in (None, "null")), "")
        if choices:
            return next((s for s in (self.function, self.order) if s in choices), None)
        if kind != "string":
            return (
                self.n if kind == "integer" else self.where or None if "condition" in says else None
            )
        query = " ".join(w for w in self.words if w not in STOP)
        parts = {
            "file": self.file,
            "group": self.group,
            "order": self.ranked,
            "column": self.measure,
            "search": query,
        }
        return next(
            (v or None for word, v in {**parts, "draft": self._draft()}.items() if word in says),
            self.text,
        )

    def form_value(self, name: str, schema: dict[str, Any]) -> Any:
        """A value for a field of a structured answer.

        What a result has under that name, else one of its type.
        """
        known = {k: v for r in self.results if isinstance(r, dict) for k, v in r.items()}
        items = next((v for v in known.values() if isinstance(v, list)), [])
        text = (
            self.topic[:80].capitalize()
            if {"title", "subject"} & set(words_of(name))
            else self._draft()
        )
        said = re.search(r"\d+", self.low)
        number = int(said[0]) if said else 0
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
            else known.get(name, by_type.get(schema.get("type", ""), text))
        )

    def _draft(self) -> str:
        return (
            f"This is about {self.topic}. Reply with what is missing, and this text will be "
            f"revised. {STAND_IN}"
        )

    def read_out(self) -> str:
        result = (
            self.results[-1]
            if self.results
            else f"No tool fits what you asked, and I cannot think: {self.text}"
        )
        if not isinstance(result, dict):
            return f"{result} {STAND_IN}"
        head = ", ".join(
            f"{k}: {v}" for k, v in result.items() if v and not isinstance(v, list | dict)
        )
        limits = f" where {' and '.join(result['where'])}" if result.get("where") else ""
        if "value" in result:
            of = f" of {result['column']}" if result.get("column") else ""
            return (
                f"The {result.get('function', 'value')}{of}{limits} is {result['value']}. "
                f"{STAND_IN}"
            )
        lines = [
            _line(i) for k, v in result.items() if isinstance(v, list) and k != "where" for i in v
        ]
        return "\n".join(
            [f"{head}{limits}{':' if lines else ': nothing was found.'}", *lines, STAND_IN]
        )


def _line(item: Any) -> str:
    if not isinstance(item, dict):
        return f"- {item}"
    if {"file", "line", "quote"} <= set(item):
        return f'- "{item["quote"]}" ({item["file"]}:{item["line"]})'
    nested = (i for v in item.values() if isinstance(v, list) for i in v)
    names = [str(i["name"]) for i in nested if isinstance(i, dict) and "name" in i]
    return "- " + ", ".join(
        [f"{k}: {v}" for k, v in item.items() if not isinstance(v, list)] + names
    )
