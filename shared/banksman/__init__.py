"""What the services share: ids, records, the ledger, the wire, the client and the command line.

The names that programs use most are here too, and cost nothing until they are asked for:
`from banksman import Client`, `from banksman import deep_agent`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from banksman.client import AsyncClient as AsyncClient
    from banksman.client import Client as Client

# By name, so that no service reaches through here what it must not load.
_LAZY = {
    "AsyncClient": "banksman.client",
    "Client": "banksman.client",
    "Listed": "banksman_worker.agents",
    "ask_person": "banksman_worker.asking",
    "delegate": "banksman_worker.asking",
    "delegates": "banksman_worker.asking",
    "external": "banksman_worker.asking",
    "question": "banksman_worker.asking",
    "questions": "banksman_worker.asking",
    "deep_agent": "banksman_worker.deep",
}


def __getattr__(name: str) -> Any:
    try:
        module = _LAZY[name]
    except KeyError:
        raise AttributeError(f"module 'banksman' has no attribute {name!r}") from None
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
