"""The shipped templates' tools: right numbers, clear errors, and nothing outside their folder."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.registry import Registry
from agent_runtime.tools import register_builtin_tools
from agent_runtime.tools.csv_data import CsvFolder, parse_number
from agent_runtime.tools.document_search import DocumentIndex
from agent_runtime.tools.draft_review import review

CSV = """\
city,product,price,sold,day
Berlin,Lamp,"1,200.50",2,2026-01-05
Paris,Lamp,$10,4,2026-02-01
Berlin,Desk,20,,2026-02-03
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "shop.csv").write_text(CSV)
    (tmp_path / "outside.csv").write_text("canary,value\nx,1\n")
    return tmp_path / "in"


def call(name: str, folder: Path, **args: Any) -> Any:
    registry = Registry()
    register_builtin_tools(registry)
    answer = registry.tool(name, {"data": str(folder)}).invoke(args)
    return json.loads(answer) if answer.startswith("{") else answer


def test_describe_says_types_ranges_and_values(data: Path) -> None:
    table = call("csv_describe", data)["files"][0]
    assert (table["file"], table["rows"]) == ("shop.csv", 3)
    columns = {c["name"]: c for c in table["columns"]}
    assert columns["city"]["values"] == ["Berlin", "Paris"]
    assert (columns["price"]["type"], columns["price"]["max"]) == ("number", 1200.5)
    assert (columns["day"]["type"], columns["day"]["min"]) == ("date", "2026-01-05")
    assert columns["sold"]["distinct"] == 2


@pytest.mark.parametrize(
    ("function", "column", "where", "value"),
    [
        ("sum", "price", [], 1230.5),
        ("mean", "sold", [], 3),
        ("median", "price", [], 20),
        ("min", "day", [], "2026-01-05"),
        ("max", "sold", [], 4),
        ("count", "", [], 3),
        ("count", "sold", [], 2),
        ("count_distinct", "city", [], 2),
        ("sum", "Price", [{"column": "CITY", "op": "=", "value": "berlin"}], 1220.5),
        ("count", "", [{"column": "price", "op": ">", "value": 10}], 2),
        ("count", "", [{"column": "day", "op": "starts_with", "value": "2026-02"}], 2),
        ("count", "", [{"column": "day", "op": ">=", "value": "2026-02-01"}], 2),
        ("count", "", [{"column": "product", "op": "contains", "value": "am"}], 2),
        ("count", "", [{"column": "city", "op": "!=", "value": "Berlin"}], 1),
        ("mean", "price", [{"column": "city", "op": "=", "value": "Rome"}], None),
        ("sum", "price", [{"column": "city", "op": "=", "value": "Rome"}], 0),
    ],
)
def test_aggregate(function: str, column: str, where: list[Any], value: Any, data: Path) -> None:
    assert (
        call("csv_aggregate", data, function=function, column=column, where=where)["value"] == value
    )


def test_group_top_and_filter(data: Path) -> None:
    groups = call("csv_group", data, by="city", function="sum", column="price")["groups"]
    assert groups == [{"city": "Berlin", "value": 1220.5}, {"city": "Paris", "value": 10}]
    assert call("csv_group", data, by="city", order="asc", limit=1)["groups"] == [
        {"city": "Paris", "value": 1}
    ]
    rows = call("csv_top", data, column="price", n=1)["rows"]
    assert [r["city"] for r in rows] == ["Berlin"]
    assert call("csv_top", data, column="day", n=1, order="asc")["rows"][0]["day"] == "2026-01-05"
    found = call("csv_filter", data, where=[{"column": "sold", "op": "<", "value": 3}])
    assert (found["count"], found["rows"][0]["product"]) == (1, "Lamp")


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        (
            "csv_aggregate",
            {"function": "sum", "column": "prise"},
            "no column 'prise'. Its columns: city",
        ),
        (
            "csv_aggregate",
            {"function": "sum", "column": "city"},
            "column 'city' is text. Numeric columns: price, sold",
        ),
        ("csv_aggregate", {"function": "sum"}, "'sum' needs a column"),
        ("csv_aggregate", {"function": "average"}, "function"),
        (
            "csv_top",
            {"column": "price", "file": "../outside.csv"},
            "there is no file '../outside.csv'. Files: shop.csv",
        ),
        (
            "csv_filter",
            {"where": [{"column": "price", "op": ">", "value": "much"}]},
            "'much' is not",
        ),
        ("csv_filter", {}, "where"),
    ],
)
def test_wrong_arguments_are_an_answer_that_helps(
    name: str, args: dict[str, Any], message: str, data: Path
) -> None:
    assert message in str(call(name, data, **args))


def test_nothing_outside_the_folder_can_be_read(data: Path) -> None:
    (data / "link.csv").symlink_to(data.parent / "outside.csv")
    assert list(CsvFolder(str(data)).files()) == ["shop.csv"]
    one = CsvFolder(str(data / "shop.csv"))
    assert list(one.files()) == ["shop.csv"]
    with pytest.raises(ValueError, match="there is no file or folder"):
        CsvFolder(str(data / "missing"))


def test_numbers_that_nobody_means_and_columns_that_stand_twice(tmp_path: Path) -> None:
    assert parse_number("1e30000000") is None
    (tmp_path / "a.csv").write_text("a,a\n1,2\n")
    with pytest.raises(Exception, match="twice"):
        CsvFolder(str(tmp_path)).tables()


def test_odd_files(tmp_path: Path) -> None:
    empty = CsvFolder(str(tmp_path))
    with pytest.raises(Exception, match="no CSV files"):
        empty.tables()
    (tmp_path / "semicolon.csv").write_text("\ufeffa;b\n1;x\n2\n\n")
    table = empty.table("semicolon")
    assert (table.columns, len(table.rows), table.rows[1]["b"]) == (("a", "b"), 2, "")
    (tmp_path / "bytes.csv").write_bytes(b"a\n\xff\n")
    with pytest.raises(Exception, match="not UTF-8"):
        empty.tables()
    (tmp_path / "bytes.csv").write_text("")
    with pytest.raises(Exception, match="cannot be read as CSV"):
        empty.tables()
    (tmp_path / "bytes.csv").write_text('a,b\n"two\nlines",1\n')
    assert empty.table("bytes.csv").rows[0]["a"] == "two\nlines"


QUOTE = 'city,product,price\nParis,"Lamp,10\nRome,Desk,20\nOslo,Lamp,30\n'
MANY = "a,b\n" + "1\n" * 30


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (QUOTE, "lines 2 to 4 are one row: a quote that is not closed hides others"),
        (QUOTE + 'Bonn,"Vase",5\n', "lines 2 to 5 are one row"),
        ("a,b\n1,2\n3,4,5\n", "line 3 has 3 cells for 2 columns: the last are left out"),
        ("a,b\n\n1\n", "line 3 has 1 cells for 2 columns: the last are empty"),
        (MANY, "and 20 more lines"),
    ],
)
def test_rows_that_cannot_be_read_as_they_stand_are_said_in_every_answer(
    tmp_path: Path, text: str, problem: str
) -> None:
    (tmp_path / "a.csv").write_text(text)
    column = text[: text.index(",")]
    answers = [
        call("csv_describe", tmp_path)["files"][0],
        call("csv_aggregate", tmp_path, function="count"),
        call("csv_filter", tmp_path, where=[]),
        call("csv_group", tmp_path, by=column),
        call("csv_top", tmp_path, column=column),
    ]
    for answer in answers:
        assert problem in answer["problems"][-1]


def test_a_text_of_several_lines_is_no_problem(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('a,b,c\n"one, and\ntwo",1,2\n"x\n\ny",1,2\n')
    assert CsvFolder(str(tmp_path)).table("a").problems == ()
    assert "problems" not in call("csv_filter", tmp_path, where=[])


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=2, min_value=-(10**9), max_value=10**9
    )
)
def test_numbers_are_read_as_they_are_written(value: Decimal) -> None:
    assert parse_number(str(value)) == value
    assert parse_number(f"{value:,}") == value
    assert parse_number(f"{abs(value)}%") == abs(value)


@given(st.text(max_size=20))
def test_any_cell_is_a_number_or_is_not(text: str) -> None:
    assert parse_number(text) is None or isinstance(parse_number(text), Decimal)


def test_search_quotes_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(
        "# Title\n\nFirst line.\nThe cat sleeps on the sofa. It purrs.\n\nDogs bark.\n"
    )
    (tmp_path / "b.txt").write_text("Nothing here about felines.\n")
    (tmp_path / "c.bin").write_text("cat")
    index = DocumentIndex(str(tmp_path))
    hit = index.search("Where does the cat sleep?", 3)[0]
    assert (hit["file"], hit["line"], hit["quote"]) == ("a.md", 4, "The cat sleeps on the sofa.")
    (tmp_path / "d.md").write_text("A zebra.\n")
    assert index.search("zebra", 1)[0]["file"] == "d.md"  # a new file is found without a restart
    assert index.search("unicorn", 3) == []
    with pytest.raises(Exception, match="no words"):
        index.search("?!", 3)
    with pytest.raises(ValueError, match="there is no"):
        DocumentIndex(str(tmp_path / "missing"))


def test_search_does_not_follow_links_out_and_takes_no_query_language(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "canary.md").write_text("canary words\n")
    (tmp_path / "in" / "link.md").symlink_to(tmp_path / "canary.md")
    (tmp_path / "in" / "a.md").write_text("plain words\n")
    index = DocumentIndex(str(tmp_path / "in"))
    assert index.search("canary", 3) == []
    for query in ('"unbalanced', "a AND (b", "file:secret", "NEAR(x y)", "x*"):
        index.search(query, 3)


def test_review_counts() -> None:
    good = review("Short and clear. We open at nine.", 120)
    assert good == {"words": 7, "sentences": 2, "issues": []}
    long = "word " * 30 + "very. "
    issues = " ".join(review(long, 10)["issues"])
    assert "cut 21" in issues
    assert "split" in issues
    assert "'very'" in issues
    assert "'word' appears 30 times" in issues
