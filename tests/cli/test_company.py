"""Commands around a vote, as people at a terminal run them."""

from __future__ import annotations

import json

import pytest

from banksman import ids, ledger
from banksman.ids import RequestId
from banksman.ledger import staff
from tests.cli.conftest import Banksman
from tests.gateway.scenes import Site, asking


def req(request_id: RequestId) -> str:
    return ids.show("req", request_id)


def test_a_vote_is_taken_back_and_what_is_missing_is_said(banksman: Banksman, site: Site) -> None:
    _, [asked] = site.a_waiting_run(asking(approvals=2))

    voted = banksman("approve", req(asked), "-y", "--as", "ana@example.org")
    back = banksman("withdraw", req(asked), "--as", "ana@example.org")
    again = banksman("withdraw", req(asked), "--as", "ana@example.org")
    shown = banksman("approve", req(asked), "-y", "--as", "ben@example.org")

    assert "1 agreed. It waits for one more person." in voted.stdout
    assert (back.returncode, again.returncode) == (0, 3)
    assert f"Your vote on {req(asked)} is taken back. It waits for two people." in back.stdout
    assert "ana@example.org said approve to revision 1 (does not count: it was taken back)" in shown.stdout


def test_a_card_says_who_agreed_what_is_missing_and_who_may_say_it(banksman: Banksman, site: Site) -> None:
    with ledger.transaction(site.gateway) as conn:
        staff.upsert(conn, "ana@example.org", name="Ana", groups=["engineering"])
        staff.upsert(conn, "ben@example.org", name="Ben", groups=["security"])
    _, [asked] = site.a_waiting_run(asking(approvals=2, groups={"engineering": 1, "security": 1}))

    first = banksman("approve", req(asked), "-y", "--as", "ana@example.org")
    second = banksman("approve", req(asked), "-y", "--as", "ben@example.org")

    assert "It waits for one of engineering and one of security. May decide: engineering, security." in first.stdout
    assert "Agreed: ana@example.org." in second.stdout
    assert "It waits for one of security." in second.stdout


def test_people_ask_back_and_look_in_a_terminal(banksman: Banksman, site: Site) -> None:
    _, [asked] = site.a_waiting_run()

    remarked = banksman("remark", req(asked), "Why \x1b[31mthere?", "--as", "ana@example.org")
    looked = banksman("look", req(asked), "--as", "ben@example.org")
    stopped = banksman("look", req(asked), "--stop", "--as", "ben@example.org")

    assert remarked.returncode == looked.returncode == stopped.returncode == 0, remarked.stderr
    assert "ana@example.org" in remarked.stdout
    assert "Why ⟦U+001B⟧[31mthere?" in remarked.stdout
    assert "Ben is looking" in looked.stdout
    assert "Nobody is looking." in stopped.stdout


def test_who_is_away_is_said_listed_and_ended(banksman: Banksman) -> None:
    nobody = banksman("away")
    said = banksman("away", "ben@example.org", "--until", "2026-12-24T18:00", "--json", "--as", "ana@example.org")
    listed = banksman("away", "--as", "ben@example.org")
    [absence] = json.loads(said.stdout)
    ended = banksman("away", "--end", absence["id"], "--as", "ana@example.org")

    assert "Nobody that concerns you" in nobody.stdout
    assert (absence["person"], absence["stand_in"], absence["live"]) == ("ana@example.org", "ben@example.org", True)
    assert "now" in listed.stdout
    assert "ended" in ended.stdout


@pytest.mark.parametrize("arguments", [["ben@example.org"], ["ben@example.org", "--until", "soon"]])
def test_an_absence_without_a_readable_end_is_wrong_usage(banksman: Banksman, arguments: list[str]) -> None:
    assert banksman("away", *arguments, "--as", "ana@example.org").returncode == 2
