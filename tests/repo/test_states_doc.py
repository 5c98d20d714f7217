"""The tables and the diagram of docs/states.md say what `banksman.states` says, move by move."""

from __future__ import annotations

import re
from pathlib import Path

from banksman.states import FINAL, REQUEST_MOVES, RUN_MOVES, SETTLES, VERDICTS, RequestState, RunStatus

PAGE = (Path(__file__).parents[2] / "docs" / "states.md").read_text()


def test_the_page_lists_every_state_of_a_run_and_which_of_them_are_over() -> None:
    rows = table("state", "over")

    assert [row[0] for row in rows] == [f"`{status}`" for status in RunStatus]
    assert {row[0].strip("`") for row in rows if row[1] == "yes"} == {*FINAL}
    assert {row[1] for row in rows} == {"yes", "no"}


def test_the_page_lists_every_move_of_a_run() -> None:
    rows = table("move", "from", "to", "when")

    assert [(names(by), set(names(origins)), names(target), when) for by, origins, target, when in rows] == [
        ([move.by], {*move.origins}, [move.target], move.when) for move in RUN_MOVES
    ]


def test_the_diagram_draws_every_move_of_a_run_and_no_other() -> None:
    drawn = re.findall(r"^    (\w+) --> (\w+): (\w+)$", PAGE, re.MULTILINE)

    assert sorted(drawn) == sorted((origin, move.target, move.by) for move in RUN_MOVES for origin in move.origins)


def test_the_page_lists_every_state_of_a_request_and_which_of_them_people_set() -> None:
    rows = table("state", "set by")

    assert [row[0] for row in rows] == [f"`{state}`" for state in RequestState]
    assert {row[0].strip("`") for row in rows if row[1] == "people"} == {*SETTLES.values()}


def test_the_page_lists_every_move_of_a_request() -> None:
    listed = {row[0].strip("`"): names(row[2]) for row in table("move", "from", "to", "by")}

    assert set(listed.pop("settle")) == {*SETTLES.values()}
    assert listed == {by: [state] for by, state in REQUEST_MOVES.items() if by != "settle"}


def test_the_page_says_what_each_vote_may_say_and_where_it_leads() -> None:
    listed = {row[0].strip("`"): set(re.findall(r"`(\w+)` → `(\w+)`", row[2])) for row in table("kind", "what it asks")}

    assert listed == {
        kind: {(verdict, SETTLES[verdict]) for verdict in verdicts} for kind, verdicts in VERDICTS.items()
    }


def table(*heads: str) -> list[list[str]]:
    """The rows of the one table whose columns begin with these heads."""
    start = "| " + " | ".join(heads) + " |"
    assert PAGE.count(f"\n{start}") == 1, f"There must be one table that begins with {start}"
    lines = PAGE[PAGE.index(f"\n{start}") + 1 :].split("\n\n", 1)[0].split("\n")
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def names(cell: str) -> list[str]:
    """What a cell names in code style."""
    return re.findall(r"`(\w+)`", cell)
