"""The offline model on CSV files and questions that are not in the repository's samples."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool

from agent_runtime import AgentFactory
from agent_runtime.models.offline import OfflineChatModel
from agent_runtime.models.question_words import STAND_IN

FILES = {
    "employees": """\
name,department,salary,age,hire_date,remote
Alice Johnson,Engineering,85000,34,2019-03-15,yes
Bob Smith,Marketing,62000,45,2017-07-01,no
Carla Gomez,Engineering,95000,29,2021-01-10,yes
David Lee,Sales,54000,38,2018-11-20,no
Eva Brown,Sales,58000,41,2016-05-05,yes
Frank Moore,HR,49000,50,2015-02-28,no
Grace Kim,Engineering,105000,36,2020-09-12,no
Henry Adams,Marketing,67000,31,2022-04-18,yes
""",
    "books": """\
Title,Author,Genre,Pages,Price,Rating,Year
Dune,Herbert,SciFi,612,9.99,4.5,1965
Emma,Austen,Romance,474,7.50,4.0,1815
Neuromancer,Gibson,SciFi,271,8.25,4.1,1984
Persuasion,Austen,Romance,249,6.75,4.2,1817
Hyperion,Simmons,SciFi,482,10.50,4.6,1989
It,King,Horror,1138,12.00,4.3,1986
Carrie,King,Horror,199,5.99,3.9,1974
""",
    "orders": """\
OrderID;CustomerName;City;Product;UnitsSold;UnitPrice;Status;OrderDate
1;Anna;Berlin;Laptop;2;999.00;shipped;2023-01-15
2;Ben;Paris;Phone;5;599.00;pending;2023-02-20
3;Cleo;Berlin;Tablet;3;399.00;shipped;2023-03-05
4;Anna;Madrid;Phone;1;599.00;cancelled;2023-03-22
5;Dan;Paris;Laptop;4;999.00;shipped;2024-01-02
6;Eli;Berlin;Phone;7;599.00;shipped;2024-03-14
7;Ben;Madrid;Tablet;2;399.00;pending;2024-04-09
""",
    "weather": """\
date,station,temperature_c,rainfall_mm,wind_kmh
2025-06-01,Hill,18.5,0.0,12
2025-06-01,Coast,21.0,1.2,25
2025-06-02,Hill,16.0,5.4,18
2025-06-02,Coast,19.5,7.1,30
2025-07-01,Hill,24.0,0.0,9
2025-07-01,Coast,26.5,0.0,22
2025-07-02,Hill,25.5,2.3,15
2025-07-02,Coast,27.0,0.4,28
""",
    "players": """\
player,team,position,goals,assists,minutes_played,market_value
Rossi,Lions,Forward,21,5,2700,"12,000,000"
Weber,Tigers,Midfielder,8,14,2500,"9,500,000"
Okafor,Lions,Defender,2,1,2900,"4,000,000"
Silva,Bears,Forward,17,9,2650,"15,000,000"
Novak,Tigers,Forward,12,3,1800,"7,000,000"
Tanaka,Bears,Midfielder,6,11,2400,"8,000,000"
Dubois,Bears,Goalkeeper,0,0,2970,"3,500,000"
""",
    "expenses": """\
id,month,category,vendor,amount_usd,paid
1,2024-01,Travel,Acme Air,1200.50,true
2,2024-01,Software,CodeHost,300.00,true
3,2024-02,Travel,RailCo,150.25,false
4,2024-02,Office,PaperPlus,89.99,true
5,2024-03,Software,CodeHost,300.00,false
6,2024-03,Travel,Acme Air,980.00,true
7,2024-03,Office,PaperPlus,45.10,true
""",
}

QUESTIONS = [
    ("employees", "What is the total salary?", "575000"),
    ("employees", "What is the average salary in Engineering?", "95000"),
    ("employees", "How many employees are in Sales?", "2"),
    ("employees", "Which department has the highest average salary?", "Engineering"),
    ("employees", "Who has the highest salary?", "105000"),
    ("employees", "What is the maximum age?", "50"),
    ("employees", "How many employees are older than 35?", "5"),
    ("employees", "How many distinct departments are there?", "4"),
    ("employees", "List the top 3 employees by salary", "85000"),
    ("employees", "What is the average age of remote employees?", "33.75"),
    ("employees", "How many people were hired after 2018-12-31?", "4"),
    ("employees", "What is the salary of Bob Smith?", "62000"),
    ("employees", "How many employees per department?", "3"),
    ("employees", "Who is the youngest employee?", "29"),
    ("employees", "What is the median salary?", "64500"),
    ("books", "What is the average price of the SciFi books?", "9.58"),
    ("books", "How many books have more than 300 pages?", "4"),
    ("books", "What is the total number of pages?", "3425"),
    ("books", "Which book has the highest rating?", "Hyperion"),
    ("books", "What is the cheapest book?", "5.99"),
    ("books", "How many books did King write?", "2"),
    ("books", "What is the average rating by genre?", "4.4"),
    ("books", "How many books have a rating of at least 4.2?", "4"),
    ("books", "What is the sum of prices for Horror books?", "17.99"),
    ("books", "How many genres are there?", "3"),
    ("books", "What is the lowest price?", "5.99"),
    ("books", "How many books cost less than 8?", "3"),
    ("books", "Which author has the most books?", "2"),
    ("books", "How many books were published before 1900?", "2"),
    ("orders", "How many units were sold in Berlin?", "12"),
    ("orders", "What is the total units sold?", "24"),
    ("orders", "Which product sold the most units?", "13"),
    ("orders", "How many orders are shipped?", "4"),
    ("orders", "How many orders were placed in 2023?", "4"),
    ("orders", "What is the average unit price of orders in Paris?", "799"),
    ("orders", "How many orders in March 2023?", "2"),
    ("orders", "How many different cities are there?", "3"),
    ("orders", "Total units sold per city", "12"),
    ("orders", "How many orders are not shipped?", "3"),
    ("orders", "What is the highest number of units sold in a single order?", "7"),
    ("orders", "How many units of Phone were sold?", "13"),
    ("orders", "How many orders did Anna place?", "2"),
    ("orders", "What are the top 2 products by units sold?", "13"),
    ("orders", "What is the minimum unit price?", "399"),
    ("orders", "Count the pending orders", "2"),
    ("weather", "What was the average temperature at the Coast station?", "23.5"),
    ("weather", "What is the total rainfall?", "16.4"),
    ("weather", "On how many days was the wind above 20?", "4"),
    ("weather", "What is the maximum wind speed?", "30"),
    ("weather", "What was the highest temperature in July 2025?", "27"),
    ("weather", "Which station had the most rainfall?", "8.7"),
    ("weather", "Average rainfall per station", "2.175"),
    ("weather", "How many measurements are there for Hill?", "4"),
    ("players", "Who scored the most goals?", "21"),
    ("players", "How many goals did the Bears score?", "23"),
    ("players", "What is the average number of assists of forwards?", "5.666667"),
    ("players", "Which team has the highest total market value?", "26500000"),
    ("players", "How many players does each team have?", "3"),
    ("players", "How many players have more than 10 goals?", "3"),
    ("players", "What is the total of minutes played by defenders?", "2900"),
    ("players", "List the top 2 players by assists", "14"),
    ("players", "What is the market value of Silva?", "15"),
    ("players", "How many teams are there?", "3"),
    ("players", "Which player has the fewest minutes played?", "1800"),
    ("expenses", "How much did we spend on Travel?", "2330.75"),
    ("expenses", "What is the total amount?", "3065.84"),
    ("expenses", "How many expenses are unpaid?", "2"),
    ("expenses", "Which category has the highest total amount?", "2330.75"),
    ("expenses", "What is the average amount for Software?", "300"),
    ("expenses", "How many expenses were there in March 2024?", "3"),
    ("expenses", "What is the largest expense?", "1200.5"),
    ("expenses", "How much was paid to Acme Air?", "2180.5"),
    ("expenses", "Total amount by category", "600"),
    ("expenses", "How many vendors are there?", "4"),
]


async def test_most_plain_questions_over_unknown_files_get_the_right_number(tmp_path: Path) -> None:
    wrong: dict[str, list[str]] = {name: [] for name in FILES}
    factory = AgentFactory()
    for name, text in FILES.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.csv").write_text(text)
    for name, question, number in QUESTIONS:
        agent = factory.create_from_template("analyst", {"data": str(tmp_path / name)})
        answer = (await agent.execute(question)).output
        if not re.search(rf"(?<![\d.]){re.escape(number)}(?!\d|\.\d)", answer):
            wrong[name].append(f"{question} -> {answer}")
    for name in FILES:
        asked = sum(q[0] == name for q in QUESTIONS)
        assert len(wrong[name]) <= 0.2 * asked, wrong[name]


async def test_the_same_question_gets_the_same_answer_and_says_who_answers(tmp_path: Path) -> None:
    agent = AgentFactory().create_from_template("analyst")
    first = await agent.execute("Which region sells most?")
    second = await agent.execute("Which region sells most?")
    assert first.output == second.output
    assert STAND_IN in first.output
    assert first.cost_usd == 0
    assert first.usage.estimated is False
    async with agent.execute_stream("Which region sells most?") as stream:
        assert "".join([t async for t in stream]) == first.output


@tool
def order_pizza(topping: str) -> str:
    """Order a pizza with a topping."""
    return f"one {topping} pizza"


@tool
def boil_water(litres: float) -> str:
    """Boil water."""
    return "boiled"


def test_it_picks_the_tool_whose_words_fit() -> None:
    model = OfflineChatModel().bind_tools([boil_water, order_pizza])
    answer = model.invoke("Please order a pizza with mushrooms")
    assert [c["name"] for c in answer.tool_calls] == ["order_pizza"]
    assert answer.usage_metadata is not None


def test_without_a_fitting_tool_it_says_that_it_cannot_think() -> None:
    answer = OfflineChatModel().invoke("What is love?")
    assert "cannot think" in answer.text
    assert STAND_IN in answer.text


def test_an_answer_form_is_filled_with_values_of_its_types() -> None:
    form: dict[str, Any] = {
        "title": "answer",
        "description": "The answer.",
        "type": "object",
        "properties": {
            "title": {"type": "string"}, "body": {"type": "string"}, "n": {"type": "integer"},
            "ok": {"type": "boolean"},
            "kind": {"type": "string", "enum": ["a", "b"]}, "items": {"type": "array"},
            "more": {"type": "object"},
        },
        "required": ["title"],
    }  # fmt: skip
    answer = (
        OfflineChatModel().bind_tools([form], tool_choice="any").invoke("Write about autumn leaves")
    )
    args = answer.tool_calls[0]["args"]
    assert args["title"] == "Autumn leaves"
    assert (args["n"], args["ok"], args["kind"], args["items"], args["more"]) == (
        0,
        True,
        "a",
        [],
        {},
    )


@pytest.mark.parametrize("history", [[], [AIMessage("only me")], [HumanMessage("")]])
def test_odd_histories_are_answered(history: list[Any]) -> None:
    assert OfflineChatModel().invoke(history).text
