"""Scopes: what an API key or a personal token opens. None lets a machine vote: people decide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from banksman.errors import InvalidInput

ScopeOfKeys = Literal[
    "runs:submit", "runs:submit-as", "runs:read", "runs:cancel", "requests:read", "requests:answer", "audit:read"
]
Scope = ScopeOfKeys | Literal["votes", "people", "policy"]

OF_KEYS: Sequence[str] = get_args(ScopeOfKeys)
"""What an API key may be given."""

OF_A_LOGIN: Sequence[Scope] = (
    "runs:submit",
    "runs:read",
    "runs:cancel",
    "requests:read",
    "votes",
    "people",
    "policy",
    "audit:read",
)
"""What a token by `banksman login` opens of what its person may do."""


def of_a_key(names: Iterable[str]) -> Sequence[str]:
    """The scopes of a new API key, each once; `InvalidInput` names those that no key can have."""
    wanted = list(dict.fromkeys(names))
    if "votes" in wanted:
        raise InvalidInput("No API key can have the scope 'votes': people vote, machines do not.")
    if "people" in wanted:
        raise InvalidInput("No API key can have the scope 'people': administrators manage people, machines do not.")
    if unknown := [name for name in wanted if name not in OF_KEYS]:
        raise InvalidInput(f"There is no scope {', '.join(map(repr, unknown))}. A key may have: {', '.join(OF_KEYS)}.")
    if not wanted:
        raise InvalidInput("A key needs at least one scope.")
    return wanted
