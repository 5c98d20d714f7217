"""Why a tool refused arguments, as the audit log keeps it for good: neither a value nor a name that the call chose."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_ai.exceptions import ModelRetry

from banksman_worker import faults

CANARY = "9-canary-9"


def _is_pin(value: str) -> str:
    raise ValueError(f"{value!r} is no valid pin")


class Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid")

    pin: Annotated[str, AfterValidator(_is_pin)] = ""
    rooms: dict[str, int] = {}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"pin": CANARY}, "pin: value_error"),
        ({"rooms": {CANARY: "x", CANARY[::-1]: "y"}}, "rooms: int_parsing"),
        ({CANARY: 1}, "the arguments: extra_forbidden"),
        ({"pin": CANARY, "rooms": 1}, "pin: value_error; rooms: dict_type"),
    ],
)
def test_what_a_tool_refused_is_said_by_field_and_kind_alone(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Arguments.model_validate(arguments)

    assert faults.without_values(caught.value, Arguments.model_fields) == said


def test_a_tools_own_words_are_not_quoted() -> None:
    assert CANARY not in faults.without_values(ModelRetry(f"{CANARY} is wrong"), ["pin"])
