"""`banksman policy check` without a gateway; the rest of the commands are carried by the API's own tests."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from banksman import cli
from banksman.cli import policy
from banksman.errors import InvalidInput
from banksman.shapes import Replay
from tests.conftest import Database

EXAMPLE = Path(__file__).parents[2] / "examples" / "banksman.toml"


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("BANKSMAN_DATABASE_URL", "BANKSMAN_DATA_DIR", "BANKSMAN_URL", "BANKSMAN_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def test_a_policy_is_checked_without_a_database_and_says_what_was_not_checked() -> None:
    told, facts = (CliRunner().invoke(cli.app, ["policy", "check", str(EXAMPLE), *more]) for more in ([], ["--json"]))

    assert told.exit_code == 0, told.output
    assert "5 rules" in told.output
    assert "no database" in told.output
    assert json.loads(facts.output) == {"rules": 5, "people_checked": False}


def test_with_a_database_it_is_checked_that_people_can_meet_the_rules(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BANKSMAN_DATABASE_URL", database.owner)

    told = CliRunner().invoke(cli.app, ["policy", "check", str(EXAMPLE)])

    assert isinstance(told.exception, InvalidInput)
    assert "rule 'large refunds', line 41: nobody could ever meet tier high, 2 people" in str(told.exception)


def test_a_fault_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text('[[rule]]\nname = "x"\nthen = "maybe"\n')

    told = CliRunner().invoke(cli.app, ["policy", "check", str(file)])

    assert isinstance(told.exception, InvalidInput)
    assert f"{file}, rule 1 'x', line 3" in str(told.exception)


def test_gates_are_listed_under_the_rules_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    check, named = ["check", "banksman_plain:agents"], {"BANKSMAN_POLICY": str(EXAMPLE)}

    bare, given, found = (
        CliRunner().invoke(cli.app, line, env=env)
        for line, env in ((check, {}), ([*check, "--policy", str(EXAMPLE)], {}), (check, named))
    )

    assert "depends on the call" not in bare.output
    assert "depends on the call: rule small refunds" in given.output
    assert given.output == found.output
    assert (given.exit_code, bare.exit_code) == (0, 0)


def test_a_replay_is_told_in_sentences_over_all_its_pages() -> None:
    first = Replay(policy="v2", examined=900, verdicts={"allow": {"approved": 800, "denied": 2}}, asking={})
    second = Replay(
        policy="v2",
        examined=20,
        verdicts={"allow": {"denied": 1, "open": 9}, "deny": {"approved": 2}, "ask": {"approved": 8}},
        asking={"same": 5, "milder": 3},
        unclear=1,
    )

    assert policy.sentences(first + second) == [
        "920 calls were asked; policy v2 would have",
        "  allowed 812, 3 of which people denied",
        "  denied 2, 2 of which people approved",
        "  asked 8: 5 as they were, 3 more mildly",
        "  1 of these because a rule's condition could not be worked out",
    ]
