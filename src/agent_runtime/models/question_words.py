"""The words of a question about a table, for the offline model."""

from __future__ import annotations

STAND_IN = "(offline stand-in, not a language model)"
"""Stands in every answer."""
FUNCTION_WORDS = {
    "mean": {"average", "avg", "mean"},
    "median": {"median"},
    "sum": {"total", "sum", "combined", "overall"},
    "count_distinct": {"distinct", "unique", "different"},
    "count": {"count"},
}
HIGHEST_WORDS = set(
    "most highest largest biggest greatest maximum max top best longest expensive oldest "
    "latest".split()
)
LOWEST_WORDS = set(
    "least lowest smallest fewest minimum min worst cheapest shortest youngest earliest "
    "bottom".split()
)
# Words of a question, with the words of column names that they point at.
RELATED_WORDS = {
    "expensive": "price cost",
    "cheapest": "price cost",
    "old": "age",
    "oldest": "age",
    "youngest": "age",
    "earn": "salary wage income",
    "paid": "salary wage",
    "revenue": "sale amount turnover",
    "sale": "revenue amount",
    "sell": "unit quantity sale sold amount",
    "sold": "quantity unit sale",
    "cost": "price amount",
    "older": "age",
    "employee": "name",
    "person": "name",
    "who": "name employee student player",
    "people": "name",
    "long": "duration",
    "from": "origin source",
    "to": "destination",
    "priced": "price",
}
ADDITIVE_WORDS = set(
    "sale revenue amount quantity unit sold total profit order spend visitor hour "
    "point goal stock".split()
)
NUMBER_WORDS = dict(
    zip("one two three four five six seven eight nine ten".split(), range(1, 11), strict=True)
)
MONTHS = (
    "january february march april may june july august september october november december"
).split()
STOP_WORDS = set(
    "a an and are at by doe for from had has how in is it me my of on or the to wa what "
    "when which who".split()
)
COMPARISONS = (
    (r"at least|no less than|>=", ">="),
    (r"at most|no more than|up to|<=", "<="),
    (
        (
            r"(?:more|greater|higher|larger|bigger|older|longer|later) "
            r"than|over|above|exceeding|after|since|>"
        ),
        ">",
    ),
    (
        (
            r"(?:less|fewer|lower|smaller|cheaper|younger|shorter|earlier) "
            r"than|under|below|before|<"
        ),
        "<",
    ),
)
