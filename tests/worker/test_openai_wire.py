"""The real OpenAI client against a local stub of its wire protocol: asked, decided, resumed, and everything that a
provider can do wrong on the way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic_ai import Agent

from banksman import ledger
from banksman.errors import ConfigurationError
from banksman.ledger import runs
from banksman.policy import Policy
from banksman.settings import WorkerSettings
from banksman.states import RunStatus
from banksman_worker import agents as listing
from banksman_worker import app
from banksman_worker.scripted import scripted_model
from tests.worker.conftest import Site, SiteMaker
from tests.worker.wire_stub import Failure, Provider, Turn, provider

PAY = Turn("I will pay.", (("call_7f", "pay", '{"amount": "5"}'),))
DONE = Turn("All done.")


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    """A provider that the environment names, as a user's does."""
    with provider() as found:
        monkeypatch.setenv("OPENAI_BASE_URL", found.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-stub")
        yield found


@pytest.fixture(params=["openai-chat:gpt-stub", "openai:gpt-stub"])
def model(request: pytest.FixtureRequest, stub: Provider) -> str:
    """A model's name, for each of the two protocols."""
    return request.param


def a_site(site: SiteMaker, model: str = "openai-chat:gpt-stub", **more: Any) -> Site:
    effects: list[Any] = []
    agent = Agent(model, instructions="Pay what is asked.")

    @agent.tool_plain(requires_approval=True)
    def pay(amount: int, currency: str = "EUR") -> str:
        effects.append((amount, currency))
        return f"paid {amount} {currency}"

    @agent.tool_plain(metadata={"banksman": "harmless"})
    def weigh(grams: float) -> str:
        effects.append(grams)
        return f"{grams} g"

    del pay, weigh
    made = site({"payer": agent}, **more)
    made.effects = effects
    return made


def make_due(here: Site) -> None:
    """Do what the dispatcher does once a postponed run's time has come."""
    with ledger.transaction(here.worker.pool) as conn:
        conn.execute("UPDATE runs SET due_at = clock_timestamp() WHERE status = 'queued'")
        [due] = runs.dispatch(conn, window=10, redispatch=timedelta(seconds=30), max_attempts=5)
    assert due.status is RunStatus.QUEUED


def test_an_approved_call_reaches_the_provider_under_its_id(site: SiteMaker, stub: Provider, model: str) -> None:
    stub.script(PAY, DONE)
    here = a_site(site, model)
    run_id, [request] = here.waiting("payer", "Pay five.")
    assert here.arguments(request) == {"amount": 5, "currency": "EUR"}
    assert here.effects == []

    run = here.decide_all(run_id, "approve")

    assert (run.status, run.output) == (RunStatus.FINISHED, "All done.")
    assert here.effects == [(5, "EUR")]
    assert len(stub.asked) == 2
    assert stub.results() == {"call_7f": "paid 5 EUR"}
    assert "Pay five." in json.dumps(stub.asked[1])
    assert stub.credentials == {"Bearer sk-stub"}
    assert run.usage["requests"] == 2
    assert run.usage["input_tokens"] == 40


def test_why_a_call_was_denied_reaches_the_provider(site: SiteMaker, stub: Provider, model: str) -> None:
    stub.script(PAY, Turn("Then not."))
    here = a_site(site, model)
    run_id, [request] = here.waiting("payer")

    here.vote(request, "deny", reason="Too early in the month.")
    run = here.advance(run_id)

    assert run.output == "Then not."
    assert here.effects == []
    assert "Too early in the month." in stub.results()["call_7f"]


def test_an_edited_call_runs_as_edited_and_the_provider_is_told(site: SiteMaker, stub: Provider, model: str) -> None:
    stub.script(PAY, DONE)
    here = a_site(site, model)
    run_id, [request] = here.waiting("payer")

    here.vote(request, "approve", arguments={"amount": 4})
    here.advance(run_id)

    assert here.effects == [(4, "EUR")]
    assert "changed the arguments" in stub.results()["call_7f"]


def test_a_mixed_turn_answers_every_call_of_it(site: SiteMaker, stub: Provider, model: str) -> None:
    calls = (("c1", "weigh", '{"grams": 2.5}'), ("c2", "pay", '{"amount": 1}'), ("c3", "pay", '{"amount": 2}'))
    stub.script(Turn(calls=calls), DONE)
    here = a_site(site, model)
    run_id, requests = here.waiting("payer")
    assert here.effects == [2.5]

    here.vote(requests[0], "approve")
    here.vote(requests[1], "deny", reason="Once is enough.")
    run = here.advance(run_id)

    assert run.status is RunStatus.FINISHED
    assert here.effects == [2.5, (1, "EUR")]
    assert stub.results() == {"c1": "2.5 g", "c2": "paid 1 EUR", "c3": "Once is enough."}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"amount": 5, "amount": 5000}', "twice"),
        ('{"amount": 5, "currency": "EUR", "\\u0061mount": 5000}', "twice"),
        ('{"amount": 123456789012345678901234567890}', "2^53-1"),
        ('{"amount": 9007199254740993}', "2^53-1"),
        ('{"amount": NaN}', "NaN"),
        ('{"amount": 5, "currency": "\\ud800"}', "surrogate"),
        ('{"amount": 5', "not JSON"),
        ("[" * 40 + "]" * 40, "nested deeper"),
    ],
)
def test_argument_text_that_two_readers_could_read_differently_goes_back_to_the_model(
    site: SiteMaker, stub: Provider, text: str, problem: str
) -> None:
    stub.script(Turn(calls=(("bad", "pay", text),)), PAY, DONE)
    here = a_site(site)

    run_id, [request] = here.waiting("payer")

    assert here.arguments(request) == {"amount": 5, "currency": "EUR"}
    assert request.call_id == "call_7f"
    assert here.effects == []
    assert problem in stub.results()["bad"]
    assert here.decide_all(run_id, "approve").status is RunStatus.FINISHED
    assert here.effects == [(5, "EUR")]


@pytest.mark.parametrize("text", ['{"grams": NaN}', '{"grams": 1e999}', '{"grams": 1, "grams": 2}'])
def test_nor_does_a_tool_that_nobody_is_asked_about_run_with_such_text(
    site: SiteMaker, stub: Provider, text: str
) -> None:
    stub.script(Turn(calls=(("bad", "weigh", text),)), DONE)
    here = a_site(site, policy=Policy(allow_tools=["weigh"]))

    run = here.advance(here.submit("payer"))

    assert run.status is RunStatus.FINISHED
    assert here.effects == []
    assert "Nothing ran." in stub.results()["bad"]


def test_a_model_that_never_mends_its_arguments_ends_the_run(site: SiteMaker, stub: Provider) -> None:
    stub.script(Turn(calls=(("bad", "pay", '{"amount": 5, "amount": 5000}'),)))
    here = a_site(site)

    run = here.advance(here.submit("payer"))

    assert run.status is RunStatus.FAILED
    assert run.error is not None
    assert "pay" in run.error
    assert here.effects == []
    assert len(stub.asked) < 10


def test_a_provider_that_is_overloaded_is_tried_again_later(site: SiteMaker, stub: Provider) -> None:
    stub.script(*[Failure(503, "Come back later.")] * 3, PAY, Failure(503, "Come back later."))
    here = a_site(site)
    run_id = here.submit("payer")

    postponed = here.advance(run_id)
    assert (postponed.status, postponed.attempts) == (RunStatus.QUEUED, 1)
    assert postponed.error is not None
    assert "503" in postponed.error
    make_due(here)
    assert here.advance(run_id).status is RunStatus.WAITING
    after_approval = here.decide_all(run_id, "approve")
    assert after_approval.status is RunStatus.QUEUED
    stub.script(DONE)
    make_due(here)
    run = here.advance(run_id)

    assert (run.status, run.error) == (RunStatus.FINISHED, None)
    assert here.effects == [(5, "EUR")]
    assert stub.results() == {"call_7f": "paid 5 EUR"}


@pytest.mark.parametrize(
    ("status", "words"), [(401, "Incorrect API key."), (404, "No such model."), (400, "Too long.")]
)
def test_what_the_provider_rejects_fails_the_run_and_says_so(
    site: SiteMaker, stub: Provider, status: int, words: str
) -> None:
    stub.script(Failure(status, words))
    here = a_site(site)

    run = here.advance(here.submit("payer"))

    assert run.status is RunStatus.FAILED
    assert run.error is not None
    assert run.error.startswith(f"The provider of the model 'gpt-stub' answered HTTP {status}")
    assert words in run.error
    assert len(stub.asked) == 1


def test_a_provider_that_is_not_there_is_tried_again_later(site: SiteMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-stub")
    here = a_site(site)

    run = here.advance(here.submit("payer"))

    assert run.status is RunStatus.QUEUED
    assert run.error is not None
    assert "gpt-stub" in run.error


def a_scripted_site(site: SiteMaker, demo_model: str) -> Site:
    agent = Agent(scripted_model(lambda _: "I am a script."))
    listed = listing.loaded("tests", "talker", agent)
    settings = cast("WorkerSettings", SimpleNamespace(demo_model=demo_model))
    return site({"talker": app.with_model(listed, settings)})


def test_the_demo_model_takes_the_place_of_a_script(site: SiteMaker, stub: Provider) -> None:
    stub.script(Turn("I am a model."))

    real = a_scripted_site(site, "openai-chat:gpt-stub")
    scripted = a_scripted_site(site, "")

    assert real.advance(real.submit("talker")).output == "I am a model."
    assert scripted.advance(scripted.submit("talker")).output == "I am a script."
    assert stub.asked[0]["model"] == "gpt-stub"
    assert len(stub.asked) == 1


def test_the_demo_model_leaves_an_authors_own_model_alone(stub: Provider) -> None:
    agent = Agent("openai-chat:gpt-own")
    settings = cast("WorkerSettings", SimpleNamespace(demo_model="openai-chat:gpt-stub"))

    assert app.with_model(listing.loaded("tests", "own", agent), settings).model is None


def test_a_demo_model_without_its_key_is_named(site: SiteMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY is not set, needed for openai"):
        a_scripted_site(site, "openai:gpt-4.1")
