"""What a link and its code are bound to: what the notice's row says, so that a link for one row fits no other."""

from __future__ import annotations

from banksman.digest import Json
from banksman.records import Notice


def digits(kind: str) -> int:
    """How long the typed code of a kind of notice is."""
    return 8 if kind == "sign_in" else 6


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
