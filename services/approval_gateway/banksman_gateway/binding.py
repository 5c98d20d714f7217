"""What a link and its code are bound to: what the notice's row says, so that a link for one row fits no other."""

from __future__ import annotations

from banksman.digest import Json
from banksman.records import Notice

_DIGITS = {"request": 6, "reminder": 6, "escalation": 6, "sign_in": 8}


def digits(kind: str) -> int:
    """How long the typed code of a kind of notice is; 0 for a kind that brings neither code nor link."""
    return _DIGITS.get(kind, 0)


def of(notice: Notice) -> dict[str, Json]:
    """The fields that the MAC of a notice's link and code covers."""
    if notice.kind == "sign_in":
        return {"person": notice.person_id.hex, "purpose": "sign_in"}
    assert notice.request_id is not None
    return {
        "person": notice.person_id.hex,
        "request": notice.request_id.hex,
        "revision": notice.revision,
        "purpose": "decide",
    }
