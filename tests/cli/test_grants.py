"""Standing grants from a terminal."""

from __future__ import annotations

import json

from banksman import ids
from banksman.states import Tier
from tests.cli.conftest import Banksman
from tests.gateway.scenes import Site, asking


def test_a_grant_is_created_listed_and_revoked(banksman: Banksman, site: Site) -> None:
    _, [asked] = site.a_waiting_run(asking(tier=Tier.LOW))
    wanted = ids.show("req", asked)
    early = banksman("grants", "create", wanted, "--most", "3", "--as", "ana@example.org")
    assert site.vote(asked, site.token(site.ana)).status_code == 200

    made = banksman(
        "grants",
        "create",
        wanted,
        "--most",
        "3",
        "--lasts",
        "2h",
        "--free",
        "content",
        "--json",
        "--as",
        site.ana.email,
    )
    grant = json.loads(made.stdout)
    listed = banksman("grants", "list")
    other = banksman("grants", "revoke", grant["id"], "--as", site.ben.email)
    revoked = banksman("grants", "revoke", grant["id"], "--as", site.ana.email)
    live = banksman("grants", "list")
    everything = banksman("grants", "list", "--all", "--json")

    assert early.returncode == 3
    assert f"{grant['id']}  standing, used 0 of 3 times" in listed.stdout
    for line in (
        "given by   ana@example.org",
        "free       content",
        'equal      path: "/a.txt"',
        f"after      {wanted}",
    ):
        assert line in listed.stdout
    assert (other.returncode, revoked.returncode) == (5, 0)
    assert f"{grant['id']}  revoked" in revoked.stdout
    assert live.stdout == "No standing grant is live.\n"
    assert [one["state"] for one in json.loads(everything.stdout)] == ["revoked"]
    assert banksman("grants", "revoke", "gra_1").returncode == 2
