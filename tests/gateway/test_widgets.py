"""Editing in fields of the tool's own types: what is typed keeps its type, and what cannot be read is named."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from banksman import digest
from banksman.digest import Json
from banksman.ids import RequestId
from banksman.records import NewRequest
from tests.gateway.browser import Browser, Form, Words, form_in, page_of, stored
from tests.gateway.scenes import Site, asking

SCHEMA: dict[str, Json] = {
    "type": "object",
    "properties": {
        "code": {"type": "string", "description": "The customer's number."},
        "amount": {"type": "integer"},
        "rate": {"type": "number"},
        "urgent": {"type": "boolean"},
        "currency": {"$ref": "#/$defs/Currency"},
        "lines": {"type": "array", "items": {"type": "string"}},
        "memo": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "limit": {"type": ["integer", "null"]},
        "either": {"type": ["integer", "string"]},
    },
    "$defs": {"Currency": {"enum": ["EUR", "CHF"], "type": "string"}},
    "required": ["code", "amount"],
    "additionalProperties": False,
}
GIVEN: dict[str, Json] = {
    "code": "1", "amount": 10, "rate": 0.5, "urgent": True, "currency": "EUR", "lines": ["a"], "memo": None,
}  # fmt: skip
UNTOUCHED = {"arg-urgent": "true", "arg-currency": '"EUR"', "state-memo": "null"} | dict.fromkeys(
    ("state-limit", "state-either"), "absent"
)


def a_payment(site: Site, **more: Json) -> RequestId:
    return site.a_waiting_run(_typed(GIVEN | more))[1][0]


def _typed(arguments: dict[str, Json]) -> NewRequest:
    new = asking(tool="pay", arguments=arguments)
    action = json.loads(new.action) | {"schema": digest.of_schema(SCHEMA).hex()}
    return replace(
        new,
        action=digest.canonical(action),
        digest=digest.of_action(action),
        schema=digest.canonical(SCHEMA),
        schema_hash=digest.of_schema(SCHEMA),
    )


def the_form(ana: Browser, request_id: RequestId) -> Form:
    """The form with what a browser sends of boxes and choices too."""
    form = ana.form(f"{page_of(request_id)}/edit")
    form.fields |= UNTOUCHED
    return form


def test_each_argument_has_a_field_of_its_type(site: Site, ana: Browser) -> None:
    page = ana.get(f"{page_of(a_payment(site))}/edit").text

    for field in (
        '<input id="arg-code" type="text"',
        '<input id="arg-amount" type="number"',
        '<input id="arg-rate" type="number"',
        '<input id="arg-urgent" type="checkbox"',
        '<select id="arg-currency"',
        '<textarea id="arg-lines" class="json short"',
        '<select id="state-memo"',
        '<textarea id="arg-either" class="json short"',
    ):
        assert field in page, field
    assert "number." in Words(page).text
    assert 'id="state-code"' not in page


@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ({"arg-amount": "11"}, {"amount": 11}),
        ({"arg-code": "2"}, {"code": "2"}),
        ({"arg-rate": "1.0"}, {"rate": 1}),
        ({"arg-urgent": ""}, {"urgent": False}),
        ({"arg-currency": '"CHF"'}, {"currency": "CHF"}),
        ({"arg-lines": '["a", 1]'}, None),
        ({"arg-lines": '["a", "1"]'}, {"lines": ["a", "1"]}),
        ({"state-memo": "value", "arg-memo": ""}, {"memo": ""}),
        ({"state-memo": "value", "arg-memo": "null"}, {"memo": "null"}),
        ({"state-memo": "absent"}, {"memo": ...}),
        ({"state-limit": "null"}, {"limit": None}),
        ({"state-limit": "value", "arg-limit": "3"}, {"limit": 3}),
        ({"state-either": "value", "arg-either": '"3"'}, {"either": "3"}),
        ({"state-either": "value", "arg-either": "3"}, {"either": 3}),
    ],
)
def test_what_is_typed_keeps_its_type_and_the_rest_stays(
    site: Site, ana: Browser, typed: dict[str, str], becomes: dict[str, Json] | None
) -> None:
    request_id = a_payment(site)

    form = the_form(ana, request_id)
    form.fields |= typed
    confirm = ana.send(form)

    if becomes is None:
        assert confirm.status_code == 422
        assert "lines/1" in confirm.text
        return
    assert "What you changed" in Words(confirm.text).text
    assert ana.send(form_in(confirm.text)).status_code == 303
    wanted = {name: value for name, value in (GIVEN | becomes).items() if value is not ...}
    found = json.loads(stored(site, request_id).action)["arguments"]
    assert (found, {k: type(v) for k, v in found.items()}) == (wanted, {k: type(v) for k, v in wanted.items()})


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"arg-amount": "ten"}, "amount: write a whole number"),
        ({"arg-amount": "1.5"}, "amount: write a whole number"),
        ({"arg-amount": ""}, "amount: write a whole number"),
        ({"arg-rate": "NaN"}, "rate: write a number"),
        ({"arg-currency": '"USD"'}, "currency: choose one of"),
        ({"arg-lines": "["}, "lines"),
        ({"state-code": "absent"}, "code: choose one of"),
        ({"arg-either": "true", "state-either": "value"}, "either"),
        ({}, "Nothing was changed"),
    ],
)
def test_what_cannot_be_read_or_does_not_fit_is_named_and_what_was_typed_stays(
    site: Site, ana: Browser, typed: dict[str, str], said: str
) -> None:
    request_id = a_payment(site)

    form = the_form(ana, request_id)
    form.fields |= typed
    answer = ana.send(form)

    assert answer.status_code == 422
    assert said in Words(answer.text).text
    if "arg-amount" in typed:
        assert form_in(answer.text).fields["arg-amount"] == typed["arg-amount"]
    assert stored(site, request_id).revision == 1


@pytest.mark.parametrize("code", ["\u202e1", "é", "a\u200bb", "a\rb", "a\tb"])
def test_a_text_that_a_field_would_hide_or_change_is_edited_as_json(site: Site, ana: Browser, code: str) -> None:
    request_id = a_payment(site, code=code)
    form = the_form(ana, request_id)

    assert form.fields["arg-code"] == json.dumps(code)
    assert "Nothing was changed" in ana.send(form).text
