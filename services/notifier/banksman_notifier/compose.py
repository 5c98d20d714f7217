"""Writes messages: one folder of templates for each mail, filled with what a mail may say and nothing else.

Arguments never appear. Names that come from far away (a tool's, an agent's, a requester's) are written in a short form
of plain characters, so that no invisible or look-alike letter and no line break travels in a mail.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from banksman.ids import show
from banksman.records import Matter
from banksman.states import Tier
from banksman_notifier.channels import Message
from banksman_notifier.gateway import Link

_LONGEST = 60
_FOREIGN = re.compile(r"[^A-Za-z0-9_.:/@+ -]")
_SILENCE = {
    "deny": "If nobody decides by then, the call is not made and the run goes on without it.",
    "stop": "If nobody decides by then, the run ends.",
    "extend": "If nobody decides by then, it goes on waiting.",
}
_SENTENCE = re.compile(r"[^ -~]")

# Jinja's own choice by file name escapes nothing whose ending it does not know, hence the default.
_TEMPLATES = Environment(
    loader=PackageLoader("banksman_notifier", "mails"),
    autoescape=select_autoescape(("html",), ("txt",), default=True),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
)


def of_request(matter: Matter, link: Link) -> Message:
    """The message that a request waits for this reviewer."""
    assert matter.requirement is not None
    assert matter.request_id is not None
    requirement = matter.requirement
    return _write(
        "request",
        matter,
        {
            "kind": matter.kind,
            "tool": plain(matter.tool),
            "agent": plain(matter.agent),
            "requester": plain(matter.requester),
            "tier": requirement.tier,
            "because": _SENTENCE.sub("?", requirement.because)[:300],
            "approvals": requirement.approvals,
            "deadline": _moment(matter.expires_at),
            "silence": _SILENCE.get(requirement.on_expiry, _SILENCE["deny"]),
            "url": link.url,
            "code": link.code if requirement.tier is Tier.LOW else None,
            "request": show("req", matter.request_id),
        },
    )


def of_sign_in(matter: Matter, link: Link) -> Message:
    """The code that a person asked for in a browser; nothing in it can be clicked."""
    return _write("sign_in", matter, {"code": link.code, "deadline": _moment(matter.expires_at)})


def plain(name: str) -> str:
    """A name in at most 60 plain characters; every other character shows as a question mark."""
    text = _FOREIGN.sub("?", name)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _write(mail: str, matter: Matter, values: Mapping[str, object]) -> Message:
    def part(name: str) -> str:
        return _TEMPLATES.get_template(f"{mail}/{name}").render(values)

    return Message(
        notice_id=matter.notice_id,
        to=matter.email,
        subject=part("subject.txt").strip(),
        text=part("body.txt"),
        html=part("body.html"),
        written_at=matter.created_at.astimezone(UTC),
    )


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
