"""Where tasks come from: files, rows and mappings.

What is wrong with a row is said, and the next ones follow.
"""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.batches import bench_of

from agent_runtime.batch import (
    BatchTask,
    InputMapping,
    TaskPriority,
    create_batch_tasks,
    prioritize_tasks,
    read_rows,
)
from agent_runtime.batch.mapping import render_template
from agent_runtime.batch.task import MAX_TASK_BYTES
from agent_runtime.errors import ConfigurationError, InputInvalid


def rows(tmp_path: Path, name: str, content: str | bytes, **given: Any) -> list[Any]:
    file = tmp_path / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return [
        (each.location, each.values if each.values is not None else each.problem)
        for each in read_rows(file, **given)
    ]


def test_jsonl(tmp_path: Path) -> None:
    text = '{"input": "a", "id": "x"}\n\n"just text"\n[1]\n{broken\n{"input": "é"}'
    found = rows(tmp_path, "t.jsonl", text)
    assert found[:2] == [("line 1", {"input": "a", "id": "x"}), ("line 3", {"input": "just text"})]
    assert found[2] == ("line 4", "a task is a map or a text, not list")
    assert found[3][1].startswith("not JSON: ")
    assert found[4] == ("line 6", {"input": "é"})
    assert "not UTF-8" in rows(tmp_path, "b.jsonl", b'{"input": "\xff"}\n')[0][1]
    assert rows(tmp_path, "t.txt", '{"input": "a"}', file_format="jsonl")[0][1] == {"input": "a"}


def test_csv(tmp_path: Path) -> None:
    found = rows(
        tmp_path, "t.csv", '\ufeffid,text\r\n1,"two\nlines, ""quoted"""\r\n2\r\n3,x,y\r\n4,\r\n'
    )
    assert found[0] == ("line 3", {"id": "1", "text": 'two\nlines, "quoted"'})
    assert "fewer fields" in found[1][1]
    assert "more fields" in found[2][1]
    assert found[3] == ("line 6", {"id": "4", "text": ""})
    assert rows(tmp_path, "t.tsv", "a\tb\n1\t2\n")[0][1] == {"a": "1", "b": "2"}
    assert "not UTF-8" in rows(tmp_path, "l.csv", b"a,b\ncaf\xe9,x\n")[0][1]
    assert rows(tmp_path, "long.csv", f"a\n{'x' * 300_000}\n")[0][1] == {"a": "x" * 300_000}
    for content, said in (("", "is empty"), ("a,a\n1,2\n", "appears twice")):
        with pytest.raises(ConfigurationError, match=said):
            rows(tmp_path, "bad.csv", content)


def test_yaml_and_what_is_no_source(tmp_path: Path) -> None:
    text = "tasks:\n  - a text\n  - {input: {x: 1}, priority: high}\n  - 7\n"
    assert [each[1] for each in rows(tmp_path, "t.yaml", text)] == [
        {"input": "a text"}, {"input": {"x": 1}, "priority": "high"}, ("a task is a map or a "
                                                                      "text, not int"),
    ]  # fmt: skip
    for name, content, said in (
        ("x.yaml", "a: b", "a list of tasks"),
        ("x.yaml", "a: [", "not valid YAML"),
        ("x.doc", "a", "come from .jsonl"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            rows(tmp_path, name, content)
    with pytest.raises(FileNotFoundError):
        list(read_rows(tmp_path / "none.csv"))


def test_stdin_is_jsonl_unless_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"input": "a"}\n"b"\n'))
    assert [each.values for each in read_rows("-")] == [{"input": "a"}, {"input": "b"}]
    monkeypatch.setattr("sys.stdin", io.StringIO("input\na\n"))
    assert [each.values for each in read_rows("-", "csv")] == [{"input": "a"}]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_line_that_is_too_long_is_a_problem_at_its_place_and_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("agent_runtime.batch.sources.MAX_LINE", 100)
    lines = {"jsonl": ['{"input": "a"}', json.dumps({"input": "x" * 1000}), '{"input": "b"}']}
    lines["csv"] = ["input", "a", "x" * 1000, "b"]
    file = tmp_path / f"rows.{kind}"
    file.write_text("\n".join(lines[kind]))
    first, long, last = read_rows(file)
    assert (first.values, long.values, last.values) == ({"input": "a"}, None, {"input": "b"})
    assert "more than 100 characters" in long.problem


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.yaml"])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises((ConfigurationError, OSError), match="regular file"):
        list(read_rows(tmp_path / name))
    with pytest.raises(ConfigurationError, match="regular file"):
        list(read_rows("/dev/zero", "jsonl"))


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1),
        min_size=1,
        max_size=4,
        unique=True,
    ),
    st.data(),
)
def test_what_a_csv_writer_writes_is_read(columns: list[str], data: st.DataObject) -> None:
    cell = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=20)
    table = data.draw(
        st.lists(st.lists(cell, min_size=len(columns), max_size=len(columns)), max_size=4)
    )
    table = [row for row in table if any(row)]
    out = io.StringIO()
    csv.writer(out).writerows([columns, *table])
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix=".csv", encoding="utf-8", newline="") as file:
        file.write(out.getvalue())
        file.flush()
        found = list(read_rows(file.name))
    assert [each.values for each in found] == [
        dict(zip(columns, row, strict=True)) for row in table
    ]


def test_a_mapping_says_what_a_task_is_made_of() -> None:
    mapping = InputMapping(
        {
            "input": "Say {text} {{in}} {lang}",
            "id": "{n}",
            "inputs.lang": "{lang}",
            "metadata.from": "{n}",
        },
        "translator",
        {"lang": {"type": "string"}, "count": {"type": "integer"}},
    )
    task = mapping.task({"text": "hi {lang}", "lang": "fr", "n": 7, "priority": "high"})
    assert task == BatchTask(
        "Say hi {lang} {in} fr",
        "translator",
        "7",
        {"lang": "fr"},
        TaskPriority.HIGH,
        None,
        {"from": 7},
    )
    assert (
        InputMapping({"input": "{messages}"})
        .task({"messages": [{"role": "user", "content": "x"}]})
        .input[0]["role"]
        == "user"
    )
    assert InputMapping({"input.question": "{q}", "input.top": "{k}"}).task(
        {"q": "why", "k": 3}
    ).input == {
        "question": "why",
        "top": 3,
    }
    plain = InputMapping(agent="a", properties={"count": {"type": "integer"}}).task(
        {"input": "x", "count": "3", "other": "y", "timeout_s": "2.5", "id": ""}
    )
    assert (plain.inputs, plain.metadata, plain.timeout_s, plain.agent) == (
        {"count": 3},
        {"other": "y"},
        2.5,
        "a",
    )
    with pytest.raises(InputInvalid, match="no column 'txt': did you mean 'text'"):
        mapping.task({"text": "x", "lang": "y", "n": 1}) if False else InputMapping(
            {"input": "{txt}"}
        ).task({"text": "x"})
    with pytest.raises(InputInvalid, match=r"has no 'input' \(it has: a, b\)"):
        InputMapping().task({"a": 1, "b": 2})
    for wrong, said in (
        ({"inptu": "x"}, "did you mean 'input'"),
        ({"input": "x", "input.a": "y"}, "not both"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            InputMapping(wrong)


@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=2), st.text(max_size=8), min_size=1, max_size=3
    ),
    st.data(),
)
def test_a_filled_text_has_the_values_and_nothing_else(
    row: dict[str, str], data: st.DataObject
) -> None:
    parts = data.draw(
        st.lists(
            st.one_of(
                st.sampled_from([f"{{{name}}}" for name in row]), st.text("xyz {}", max_size=4)
            ),
            max_size=5,
        )
    )
    escaped = [
        part
        if part[1:-1] in row and part[:1] == "{"
        else part.replace("{", "{{").replace("}", "}}")
        for part in parts
    ]
    wanted = "".join(row[p[1:-1]] if p[:1] == "{" and p[1:-1] in row else p for p in parts)
    assert render_template("".join(escaped), row) == wanted


def test_helpers() -> None:
    made = create_batch_tasks(
        ["a", {"input": "b", "priority": "urgent"}, BatchTask("c", priority=TaskPriority.LOW)],
        "x",
        priority="high",
    )
    assert [(each.input, each.agent, each.priority.value) for each in made] == [
        ("a", "x", 2),
        ("b", "x", 3),
        ("c", "x", 0),
    ]
    assert [each.input for each in prioritize_tasks(made)] == ["b", "a", "c"]
    assert [
        each.input
        for each in prioritize_tasks(made, lambda task: "urgent" if task.input == "c" else "low")
    ] == [
        "c",
        "a",
        "b",
    ]
    assert create_batch_tasks([1, 2], "x", make=lambda n: f"number {n}")[1].input == "number 2"
    with pytest.raises(InputInvalid, match="item 2: a task is text"):
        create_batch_tasks(["a", 3])
    for wrong in (
        {"input": None},
        {"input": 3},
        {"input": "x", "id": "a\n"},
        {"input": "x", "timeout_s": 0},
        {"input": "x", "inputs": []},
    ):
        with pytest.raises(InputInvalid):
            create_batch_tasks([wrong])
    with pytest.raises(InputInvalid, match="at most"):
        BatchTask("x" * MAX_TASK_BYTES).to_json()


@given(
    st.recursive(
        st.one_of(st.text(), st.integers(), st.booleans(), st.none()),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_a_task_is_journaled_as_it_is(value: Any) -> None:
    task = BatchTask({"value": value}, "a", "i", {"x": value}, TaskPriority.LOW, 3.5, {"m": value})
    assert BatchTask.from_json(task.to_json()) == task


async def test_a_file_is_a_batch(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("ticket,text\nA,one\nB,two\nC\n")
    async with bench_of() as bench:
        name = await bench.executor.submit_batch_tasks(
            file, agent="echo", mapping={"input": "do {text}", "id": "{ticket}"}
        )
        status = await bench.executor.wait(name)
        found = await bench.executor.get_execution_results(name)
        assert [(each.task_id, each.output) for each in found] == [
            ("A", "did do one"),
            ("B", "did do two"),
            ("t3", ""),
        ]
        assert "line 4: it has fewer fields" in found[2].error.message  # type: ignore[union-attr]
        assert (status["completed"], status["failed"]) == (2, 1)
        assert json.loads(found[0].to_json())["output"] == "did do one"
